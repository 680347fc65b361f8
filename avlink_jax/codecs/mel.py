"""Log-mel spectrograms by the recipe of the paper's audio codec (its ref. 27).

`log_mel` runs on the host, for data; `log_mel_in_jax` is differentiable.

n_fft 1024, periodic Hann window, hop 160 at 16 kHz, magnitude, 64 Slaney mel bins from 0 to
8000 Hz, natural logarithm floored at 1e-5, no standardisation.
"""

import dataclasses
import functools

import jax.numpy as jnp
import librosa
import numpy as np
import scipy.fft
import scipy.sparse


@dataclasses.dataclass(frozen=True)
class MelSpec:
  """Parameters of the spectrogram. With `padding` (samples, reflected at both ends) L samples give
  exactly L/hop frames, frame n centred on sample (n + 1/2)·hop."""
  sample_rate: int = 16_000
  n_fft: int = 1024
  hop: int = 160
  n_mels: int = 64
  f_min: float = 0.0
  f_max: float = 8000.0
  floor: float = 1e-5

  @property
  def padding(self):
    return (self.n_fft - self.hop) // 2

  @property
  def rate(self):
    """Frames per second."""
    return self.sample_rate / self.hop

  @property
  def silence(self):
    """Value of a bin without energy."""
    return float(np.log(self.floor))

  @functools.cached_property
  def filters(self):
    """Mel filterbank (n_mels, n_fft/2 + 1), float32."""
    return librosa.filters.mel(sr=self.sample_rate, n_fft=self.n_fft, n_mels=self.n_mels,
                               fmin=self.f_min, fmax=self.f_max).astype(np.float32)

  @functools.cached_property
  def sparse_filters(self):
    """The same; a frequency is in two filters at most. Besides being less, their product starts
    no threads: those of BLAS spin, one a core, for every thread that reads data."""
    return scipy.sparse.csr_array(self.filters)

  @functools.cached_property
  def window(self):
    return librosa.filters.get_window('hann', self.n_fft, fftbins=True).astype(np.float32)


def normalise(wave):
  """Removes the mean and scales the peak to 0.5 (ref. 27): float32 (S,) -> (S,). Silence stays."""
  wave = wave - wave.mean() if wave.size else wave
  return (0.5 * wave / (np.abs(wave).max(initial=0.0) + 1e-8)).astype(np.float32)


def log_mel(wave, spec):
  """Log-mel of a wave: float32 (S,), S ≥ n_fft/2 -> float32 (S // hop, n_mels)."""
  padded = np.pad(wave.astype(np.float32), spec.padding, mode='reflect')
  frames = np.lib.stride_tricks.sliding_window_view(padded, spec.n_fft)[::spec.hop]
  spectrum = scipy.fft.rfft(frames * spec.window, axis=-1)
  magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2)  # np.abs checks overflow and is slower
  mel = spec.sparse_filters @ magnitude.T
  return np.log(np.maximum(mel.T, spec.floor), order='C')


def frames_in_jax(wave, spec):
  """Windows (B, T, n_fft), a hop apart, of wave (B, n_fft + (T − 1)·hop).

  A window spans ⌈n_fft/hop⌉ hops, so a few shifted copies of the wave, cut into hops, contain all
  windows side by side. Gathering samples one by one is slow, and its gradient slower.
  """
  count = (wave.shape[1] - spec.n_fft) // spec.hop + 1
  parts = -(-spec.n_fft // spec.hop)
  length = (count + parts - 1) * spec.hop
  hops = jnp.pad(wave, ((0, 0), (0, max(0, length - wave.shape[1]))))[:, :length]
  hops = hops.reshape(wave.shape[0], -1, spec.hop)
  side_by_side = jnp.concatenate([hops[:, i:i + count] for i in range(parts)], axis=-1)
  return side_by_side[..., :spec.n_fft]


def log_mel_in_jax(wave, spec, padded=False):
  """Differentiable `log_mel` for a batch: (B, S) float32 -> (B, S // hop, n_mels).

  With `padded` the wave is (B, padding + S + padding), with real audio instead of reflections at
  both ends. The gradient is finite everywhere, and 0 on digital silence.
  """
  if not padded:
    wave = jnp.pad(wave, ((0, 0), (spec.padding, spec.padding)), mode='reflect')
  spectrum = jnp.fft.rfft(frames_in_jax(wave, spec) * spec.window)
  # The root's slope at 0 is infinite; 1e-14 is far below the floor of any mel bin.
  magnitude = jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-14)
  return jnp.log(jnp.maximum(magnitude @ spec.filters.T, spec.floor))
