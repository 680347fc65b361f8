"""How well and how fast the vocoder speaks, beside Griffin-Lim; and which convolution is faster.

    python -m tests.benchmarks.vocoder [--weights=F] [--folder=DIR] [--clips=N]
    python -m tests.benchmarks.vocoder --convolutions
    python -m tests.benchmarks.vocoder --conditional

The first prints, for held-out impacts clips and for real ones, the mean |Δ| between the log-mel of
a clip and that of the sound made from it (natural logarithm), and how long making it takes. The
second is the reason why `hifigan.conv` is XLA's convolution, `hifigan.transposed_conv` a matrix
product and `mel.log_mel_in_jax` an FFT: milliseconds forward and with the gradient. The third is
the reason why the vocoder's task has no lax.cond around its discriminators.
"""

import argparse
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs import hifigan, hifigan_losses
from avlink_jax.codecs.griffin_lim import griffin_lim
from avlink_jax.codecs.mel import MelSpec, frames_in_jax, log_mel, log_mel_in_jax, normalise
from avlink_jax.codecs.vocoder import HiFiGANVocoder, fit_to_mel
from avlink_jax.data.impacts import Impacts
from avlink_jax.data.media import decode as media
from avlink_jax.storage import weights
from configs import vocoder as config
from tests.benchmarks.attention import milliseconds

SPEC = MelSpec()
ROUNDS = config.get_config('nano').sample.vocoder_rounds


def impacts_waves(count):
  source = Impacts('test', height=4, width=8)
  return [source.load(i).audio for i in range(count)]


def folder_waves(folder, count):
  waves = [media.decode(path, need_video=False, duration=5.16).audio
           for path in sorted(pathlib.Path(folder).glob('*.mp4'))]
  return [wave for wave in waves if wave.size >= SPEC.sample_rate][:count]


def compare(name, waves, vocoder, params):
  """One line: distances and seconds of both. The first clip's compilation is not counted."""
  whole = 516 * SPEC.hop  # one length, so that the vocoder compiles once
  mels = [log_mel(normalise(np.resize(wave, whole)), SPEC) for wave in waves]
  speaks = lambda rounds: HiFiGANVocoder(vocoder, params, SPEC, rounds)  # noqa: E731
  noise = np.random.default_rng(0).standard_normal((1, whole)).astype(np.float32)
  # The last is what the fitting does without a network.
  ways = {'hifigan': speaks(0), **{f'hifigan+{n}': speaks(n) for n in (8, ROUNDS)},
          'griffin_lim': lambda mel: griffin_lim(mel, SPEC),
          f'noise+{ROUNDS}': lambda mel: np.asarray(
              fit_to_mel(SPEC, ROUNDS, 0.01 * noise, mel[None]))[0]}
  seconds = {}
  for way, make in ways.items():
    make(mels[0])
    start = time.perf_counter()
    made = [make(mel) for mel in mels]
    seconds[way] = (time.perf_counter() - start) / len(mels)
    distance = np.mean([np.abs(log_mel(m, SPEC) - mel).mean()
                        for m, mel in zip(made, mels, strict=True)])
    print(f'{name:8} {way:12} log-mel L1 {distance:.3f}, {1e3 * seconds[way]:6.0f} ms a clip')
  faster = seconds['griffin_lim'] / seconds[f'hifigan+{ROUNDS}']
  print(f'{name:8} {len(mels)} clips; hifigan+{ROUNDS} is {faster:.2f} times as fast as '
        'griffin_lim', flush=True)


def shifted_products(x, kernel, dilation):
  width, length = kernel.shape[0], x.shape[1]
  reach = (width - 1) * dilation // 2
  x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
  return sum(x[:, i * dilation:i * dilation + length] @ kernel[i] for i in range(width))


def one_product(x, kernel, dilation):
  width, length = kernel.shape[0], x.shape[1]
  reach = (width - 1) * dilation // 2
  x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
  x = jnp.concatenate([x[:, i * dilation:i * dilation + length] for i in range(width)], axis=-1)
  return x @ kernel.reshape(-1, kernel.shape[-1])


def zeros_between(x, kernel, rate):
  width = kernel.shape[0]
  reach = width - 1 - (width - rate) // 2
  return jax.lax.conv_general_dilated(
      x, kernel[::-1], (1,), [(reach, reach)], lhs_dilation=(rate,),
      dimension_numbers=('NWC', 'WIO', 'NWC'))


def mel_by_product(wave):
  angle = 2 * np.pi * np.outer(np.arange(SPEC.n_fft), np.arange(SPEC.n_fft // 2 + 1)) / SPEC.n_fft
  cos, sin = (np.float32(f(angle) * SPEC.window[:, None]) for f in (np.cos, np.sin))
  frames = frames_in_jax(jnp.pad(wave, ((0, 0), (SPEC.padding,) * 2), mode='reflect'), SPEC)
  magnitude = jnp.sqrt((frames @ cos)**2 + (frames @ sin)**2 + 1e-14)
  return jnp.log(jnp.maximum(magnitude @ SPEC.filters.T, SPEC.floor))


def show(what, ways, *arguments):
  times = []
  for name, f in ways.items():
    gradient = jax.grad(lambda *a, f=f: jnp.sum(jnp.tanh(f(*a))), tuple(range(len(arguments))))
    times.append(f'{name} {milliseconds(jax.jit(f), *arguments):.1f} / '
                 f'{milliseconds(jax.jit(gradient), *arguments):.1f}')
  print(f'{what}: {", ".join(times)} ms', flush=True)


def convolutions():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
  for length, channels, width, dilation in ((400, 64, 7, 2), (2000, 32, 7, 12), (8000, 16, 7, 12)):
    show(f'convolution {length}×{channels}, {width} taps',
         {'lax': lambda x, k, d=dilation: hifigan.conv(x, k, 0.0, d),
          'shifted products': lambda x, k, d=dilation: shifted_products(x, k, d),
          'one product': lambda x, k, d=dilation: one_product(x, k, d)},
         draw(4, length, channels), draw(width, channels, channels))
  for length, channels, width, rate in ((50, 128, 12, 8), (400, 64, 10, 5), (2000, 32, 8, 4)):
    show(f'transposed convolution {length}×{channels}, {width} taps, rate {rate}',
         {'product': lambda x, k, r=rate: hifigan.transposed_conv(x, k, 0.0, r),
          'lax': lambda x, k, r=rate: zeros_between(x, k, r)},
         draw(4, length, channels), draw(width, channels, channels // 2))
  show('log-mel 4×8000', {'rfft': lambda x: log_mel_in_jax(x, SPEC), 'product': mel_by_product},
       draw(4, 8000))


def conditional():
  """Gradient of the discriminators' loss at nano size, by itself and within a conditional."""
  c = config.get_config('nano').vocoder
  critics = hifigan_losses.Discriminators(c.periods, c.period_widths, c.scales, c.scale_layers)
  rng = np.random.default_rng(0)
  real, fake = (jnp.asarray(rng.standard_normal((4, 8000)), jnp.float32) for _ in range(2))
  params = critics.init(jax.random.key(0))

  def loss(params):
    return hifigan_losses.discriminator_loss(critics.apply(params, real),
                                             critics.apply(params, fake))

  def within(params, step):
    return jax.lax.cond(step > 3, loss, lambda _: jnp.zeros(()), params)

  print(f'gradient {milliseconds(jax.jit(jax.grad(loss)), params):.0f} ms, within lax.cond '
        f'{milliseconds(jax.jit(jax.grad(within)), params, 5):.0f} ms')


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--weights', help='of a vocoder at nano scale; random without')
  parser.add_argument('--folder', help='of real clips')
  parser.add_argument('--clips', type=int, default=8)
  parser.add_argument('--convolutions', action='store_true')
  parser.add_argument('--conditional', action='store_true')
  flags = parser.parse_args()
  if flags.conditional:
    return conditional()
  if flags.convolutions:
    return convolutions()
  vocoder = hifigan.build(config.get_config('nano').vocoder, SPEC)
  like = jax.eval_shape(vocoder.init, jax.random.key(0))
  if flags.weights:
    params = weights.fit(weights.read(flags.weights)[0]['params'], like, flags.weights)
  else:
    params = vocoder.init(jax.random.key(0))
  compare('impacts', impacts_waves(flags.clips), vocoder, params)
  if flags.folder:
    compare('folder', folder_waves(flags.folder, flags.clips), vocoder, params)


if __name__ == '__main__':
  main()
