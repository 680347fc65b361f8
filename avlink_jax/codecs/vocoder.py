"""Vocoders: log-mel (T, n_mels) -> wave (T·hop,).

`sample.vocoder` chooses one: 'bundled' (for the config's scale), a workdir of configs/vocoder.py, a
.safetensors file from one, a folder or file of published HiFi-GAN weights, or 'griffin_lim', which
needs no weights and sounds metallic. With '' the samples of a run that trains are of Griffin-Lim,
and it says so; who asks for samples is asked back for a vocoder.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs import hifigan, hifigan_import
from avlink_jax.codecs.griffin_lim import griffin_lim
from avlink_jax.codecs.mel import frames_in_jax
from avlink_jax.errors import UserError
from avlink_jax.storage import config_versions, weights
from avlink_jax.storage.console import say

PART = 4096  # frames of a long mel that are brought to a wave at a time
LENGTHS = 128  # mels are padded to multiples of this many frames, to compile few shapes
GRIFFIN_LIM = 'griffin_lim'
SETTING = '--config.sample.vocoder=…'
SMALLEST = 1e-7  # lower bound of a mel magnitude as a divisor; a hundredth of the floor


class HiFiGANVocoder:
  """HiFi-GAN with its parameters: log-mel (T, n_mels) -> wave (T·hop,) float32.

  `rounds` of `fit_to_mel` follow: a small network's phases are nearly right, and the rounds correct
  its magnitudes.
  """

  def __init__(self, model, params, spec, rounds=0):
    self.model, self.params, self._spec, self._rounds = model, params, spec, rounds

  def __call__(self, mel):
    """The wave, of a long mel in parts, so that memory does not grow with it. They overlap by as
    much as a sample depends on, so that they equal the whole but for rounding."""
    around = self.model.reach + self._rounds * -(-self._spec.n_fft // self._spec.hop)
    around = -(-around // LENGTHS) * LENGTHS  # then the end is padded as the whole's
    if len(mel) <= PART + 2 * around:
      return self._wave(mel)
    parts, hop = [], self.model.hop
    for first in range(0, len(mel), PART):
      before = min(first, around)
      wave = self._wave(mel[first - before:first + PART + around])
      parts.append(wave[before * hop:(before + PART) * hop])
    return np.concatenate(parts)

  def _wave(self, mel):
    fill = -len(mel) % LENGTHS
    padded = np.pad(mel, ((0, fill), (0, 0)), constant_values=self._spec.silence)[None]
    wave = hifigan.synthesise(self.model, self.params, padded)
    if self._rounds:
      wave = fit_to_mel(self._spec, self._rounds, wave, padded)
    return np.asarray(wave)[0, :len(mel) * self.model.hop]


@functools.partial(jax.jit, static_argnums=(0, 1))
def fit_to_mel(spec, rounds, wave, log_mel):
  """Moves a wave (B, T·hop) towards a log-mel (B, T, n_mels) while keeping its phases if possible.

  Each round multiplies every bin of the short-time spectrum by the filterbank-weighted mean of
  target over actual mel magnitudes (the multiplicative update of non-negative factorisation) and
  takes the wave nearest to that spectrum (as Griffin-Lim does).
  """
  filters, window = spec.filters, spec.window
  covered = filters.sum(0)
  target = jnp.exp(log_mel)
  ones = jnp.broadcast_to(window**2, (1, log_mel.shape[1], spec.n_fft))
  norm = jnp.maximum(overlap_add(ones, spec.hop), 1e-3)

  def one_round(wave, _):
    padded = jnp.pad(wave, ((0, 0), (spec.padding,) * 2), mode='reflect')
    spectrum = jnp.fft.rfft(frames_in_jax(padded, spec) * window)
    mel = jnp.sqrt(spectrum.real**2 + spectrum.imag**2) @ filters.T
    ratio = (target / jnp.maximum(mel, SMALLEST)) @ filters
    gain = jnp.where(covered > 0, ratio / jnp.maximum(covered, 1e-8), 1.0)
    frames = jnp.fft.irfft(spectrum * gain, n=spec.n_fft) * window
    wave = overlap_add(frames, spec.hop) / norm
    return wave[:, spec.padding:-spec.padding], None

  return jax.lax.scan(one_round, wave, None, length=rounds)[0]


def overlap_add(frames, hop):
  """Sum of windows (B, T, n) that are a hop apart: (B, n + (T − 1)·hop)."""
  batch, count, size = frames.shape
  parts = -(-size // hop)
  hops = jnp.pad(frames, ((0, 0), (0, 0), (0, parts * hop - size)))
  hops = hops.reshape(batch, count, parts, hop)
  total = sum(jnp.pad(hops[:, :, i], ((0, 0), (i, parts - 1 - i), (0, 0))) for i in range(parts))
  return total.reshape(batch, -1)[:, :size + (count - 1) * hop]


def require(source):
  """Raises UserError: no vocoder is named, and samples are asked for."""
  if not source:
    raise UserError(f'which vocoder? {SETTING}, a workdir of configs/vocoder.py or published '
                    f'HiFi-GAN weights of these mels, or {GRIFFIN_LIM}, which needs none and '
                    'sounds metallic')


def load(config, spec):
  """Loads the vocoder that `config.sample.vocoder` names, for mels of `spec` (a MelSpec).

  Raises UserError: missing, unreadable, or trained on other mels.
  """
  source = config.sample.vocoder
  say(f'vocoder: {source or f"Griffin-Lim, which sounds metallic; {SETTING} gives another"}',
      write=jax.process_index() == 0)
  if source in ('', GRIFFIN_LIM):
    return functools.partial(griffin_lim, spec=spec)
  path = weights.locate('vocoder', source, config.scale)
  about = weights.header(path)
  if 'config' in about:
    saved = config_versions.config_of(about, path)
    if saved.task != 'vocoder':
      raise UserError(f'{path}: weights of {saved.task}, not of a vocoder: set '
                      '--config.sample.vocoder to a workdir of configs/vocoder.py')
    try:
      model = hifigan.build(saved.vocoder, spec)
    except ValueError as error:
      raise UserError(f'{path}: a vocoder of other mels: {error}') from None
    params = weights.fit(weights.read(path)[0]['params'],
                         jax.eval_shape(model.init, jax.random.key(0)), path)
    return HiFiGANVocoder(model, params, spec, config.sample.vocoder_rounds)
  model, params, about = hifigan_import.load(source)
  _require(source, spec, model.n_mels, model.hop, about.get('sample_rate'))
  return HiFiGANVocoder(model, params, spec, config.sample.vocoder_rounds)


def _require(where, spec, n_mels, hop, sample_rate):
  expected = (spec.n_mels, spec.hop, spec.sample_rate)
  if (n_mels, hop, sample_rate or spec.sample_rate) != expected:
    raise UserError(f'{where}: a vocoder of {n_mels} mel bins, hop {hop}, {sample_rate} Hz: these '
                    f'models make {spec.n_mels} bins, hop {spec.hop}, {spec.sample_rate} Hz')
