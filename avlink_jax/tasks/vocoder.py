"""Training of the vocoder: HiFi-GAN's generator against its discriminators (Kong et al. 2020).

A batch has 'wave' (B, S), normalised by `mel.normalise`, and 'wave_mask' (B, S), False for padding,
which is at the end.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs import finite, hifigan, hifigan_losses
from avlink_jax.codecs.mel import MelSpec, log_mel_in_jax, normalise
from avlink_jax.codecs.vocoder import HiFiGANVocoder
from avlink_jax.data import batch as batches
from avlink_jax.model.noise import gaussian
from avlink_jax.tasks.mel_vae import Mel
from avlink_jax.tasks.task import Task

FASTEST = 1.25  # largest factor by which `augment` changes the speed


def cut(key, wave, mask, length, context):
  """Cuts a random segment of each clip with `context` samples on either side.

  (B, S), bool (B, S) -> (B, length + 2·context) of both. Clips are reflected at their ends, as in
  `mel.log_mel`; padding is zero, and a segment contains as little of it as possible.
  """
  if wave.shape[1] < length:
    raise ValueError(f'clips of {wave.shape[1]} samples are shorter than a piece, {length}')
  room = jnp.maximum(jnp.sum(mask, axis=1) - length, 0)
  start = jnp.floor(jax.random.uniform(key, room.shape) * (room + 1)).astype(jnp.int32)
  start = jnp.minimum(start, room)  # a uniform number times a large one may round up
  padding = ((0, 0), (context, context))
  take = jax.vmap(lambda x, i: jax.lax.dynamic_slice(x, (i,), (length + 2 * context,)))
  return (take(jnp.pad(wave * mask, padding, mode='reflect'), start),
          take(jnp.pad(mask, padding, mode='reflect'), start))


def random_noise(key, batch, length):
  """Coloured noise with a slowly varying level, deviation at most 1: (batch, length).

  Its spectrum has a slope between −12 and +3 dB an octave."""
  keys = jax.random.split(key, 4)
  draw = lambda k, low, high: jax.random.uniform(k, (batch, 1), minval=low, maxval=high)  # noqa: E731
  frequency = jnp.linspace(1e-3, 1, length // 2 + 1)
  spectrum = jnp.fft.rfft(gaussian(keys[0], (batch, length)))
  wave = jnp.fft.irfft(spectrum * frequency ** draw(keys[1], -2, 0.5), length)
  wave /= jnp.std(wave, axis=1, keepdims=True) + 1e-8
  swell = jnp.sin(draw(keys[2], 0, 2 * math.pi) + jnp.linspace(0, 1, length) * draw(keys[3], 0, 30))
  return wave * (0.5 + 0.5 * swell)


def random_tones(key, batch, length, sample_rate):
  """Harmonic tones with glides and vibrato, of amplitude about 1: (batch, length)."""
  keys = iter(jax.random.split(key, 7))
  draw = lambda low, high: jax.random.uniform(  # noqa: E731
      next(keys), (batch, 1), minval=low, maxval=high)
  t = jnp.arange(length) / sample_rate
  octaves = draw(math.log2(50), math.log2(2500)) + draw(-2, 2) * t
  octaves += draw(0, 0.08) * jnp.sin(2 * math.pi * draw(2, 9) * t + draw(0, 6.28))
  f0 = 2 ** octaves
  phase = 2 * math.pi * jnp.cumsum(f0, axis=1) / sample_rate + draw(0, 6.28)
  slope, twice_cos = draw(0.3, 2.5), 2 * jnp.cos(phase)
  previous, partial, wave = jnp.zeros_like(phase), jnp.sin(phase), 0.0
  for h in range(1, 13):  # sin (h+1)θ = 2 cos θ sin hθ − sin (h−1)θ
    wave += jnp.where(h * f0 < sample_rate / 2, partial * h ** -slope, 0)
    previous, partial = partial, twice_cos * partial - previous
  return wave


def augment(key, wave, mask, length, sample_rate):
  """Augments waves to more kinds of audio: (B, N), bool (B, N) -> (B, length) of both,
  N ≥ FASTEST·length.

  Speed, direction, sign and level change at random, clips are mixed, and noise and tones are added,
  sometimes to silence. Without this a vocoder reproduces only its training data's timbres. The peak
  is at most 1, and samples outside the mask stay zero.
  """
  keys = iter(jax.random.split(key, 16))
  draw = lambda low, high: jax.random.uniform(  # noqa: E731
      next(keys), (len(wave), 1), minval=low, maxval=high)
  chance = lambda p: draw(0, 1) < p  # noqa: E731
  level = lambda low, high: jnp.exp(draw(math.log(low), math.log(high)))  # noqa: E731

  at = jnp.arange(length) * jnp.where(chance(0.5), level(1 / FASTEST, FASTEST), 1.0)
  left = jnp.minimum(at.astype(jnp.int32), wave.shape[1] - 2)
  a, b = (jnp.take_along_axis(wave, left + i, axis=1) for i in (0, 1))
  wave, mask = a + (b - a) * (at - left), jnp.take_along_axis(mask, left, axis=1)

  reverse = chance(0.3)
  wave = jnp.where(reverse, wave[:, ::-1], wave) * jnp.where(chance(0.5), 1, -1)
  mask = jnp.where(reverse, mask[:, ::-1], mask)

  wave = wave + jnp.where(chance(0.3), level(0.03, 1.0), 0) * jnp.roll(wave, 1, axis=0)
  wave *= ~chance(0.15)
  noise, tones = (random_noise(next(keys), *wave.shape),
                  random_tones(next(keys), *wave.shape, sample_rate))
  wave += jnp.where(chance(0.4), level(1e-3, 0.15), 0) * noise
  wave += jnp.where(chance(0.3), level(0.01, 0.3), 0) * tones
  peak = jnp.max(jnp.abs(wave), axis=1, keepdims=True)
  return wave * mask * level(0.05, 1.0) / jnp.maximum(peak, 1.0), mask


@dataclasses.dataclass(frozen=True)
class Wave:
  """Reader of the normalised wave: 'wave' float32 (S,) and 'wave_mask' bool (S,)."""
  medium = 'audio'
  reads = 'wave'

  def arrays(self, layout):
    return {'wave': (np.float32, (layout.samples,)), 'wave_mask': (np.bool_, (layout.samples,))}

  def read(self, media, mask, layout):
    del layout
    return {'wave': normalise(media), 'wave_mask': mask}


@dataclasses.dataclass(frozen=True)
class VocoderTask(Task):
  """HiFi-GAN: least-squares adversarial loss + feature_weight · feature matching + mel_weight · L1
  of the log-mel.

  Before step `adversarial_after` only the L1 is active, and the discriminators do not change.
  """
  modalities = generate = ('audio',)
  kept_media = ('video',)
  readers = (Wave(),)
  groups = ('discriminator', 'generator')

  @property
  def spec(self) -> MelSpec:
    return self.models.modalities['audio'].codec.spec

  @property
  def vocoder(self):
    return hifigan.build(self.config.vocoder, self.spec)

  @property
  def discriminators(self):
    c = self.config.vocoder
    return hifigan_losses.Discriminators(
        tuple(c.periods), tuple(c.period_widths), c.scales,
        tuple(tuple(layer) for layer in c.scale_layers))

  def init(self, key, frozen=None):
    del frozen
    keys = jax.random.split(key)
    return {'discriminator': self.discriminators.init(keys[0]),
            'generator': self.vocoder.init(keys[1])}

  def exported(self, params):
    return params['generator']

  def segments(self, batch, key):
    """Training segments of a batch: log-mels (B, T, n_mels), computed with the audio around them,
    waves (B, T·hop) and their mask, bool (B, T·hop)."""
    spec, c = self.spec, self.config.vocoder
    if c.segment % spec.hop:
      raise ValueError(f'vocoder.segment {c.segment} is not a multiple of the hop, {spec.hop}')
    length = c.segment + 2 * spec.padding
    if c.augment:
      source = math.ceil(length * FASTEST) + 1
      wave, mask = cut(key, batch['wave'], batch['wave_mask'], source - 2 * spec.padding,
                       spec.padding)
      wave, mask = augment(jax.random.fold_in(key, 1), wave, mask, length, spec.sample_rate)
    else:
      wave, mask = cut(key, batch['wave'], batch['wave_mask'], c.segment, spec.padding)
    inside = slice(spec.padding, -spec.padding)
    return log_mel_in_jax(wave, spec, padded=True), wave[:, inside], mask[:, inside]

  def loss(self, params, stats, frozen, batch, key, step, group):
    """Loss of a group; generated waves are zero outside the mask, like the clips."""
    del frozen
    mel, real, mask = self.segments(batch, key)
    fake = self.vocoder.apply(params['generator'], mel) * mask
    losses = self._discriminator_loss if group == 'discriminator' else self._generator_loss
    value, metrics = losses(params['discriminator'], real, fake)
    # A lax.cond would save this work in the first steps, but on a CPU XLA compiles convolutions in
    # one so badly that all later steps take more than twice as long (tests/benchmarks/vocoder.py
    # --conditional).
    active = jnp.float32(step >= self.config.vocoder.adversarial_after)
    value, metrics = jax.tree.map(lambda x: active * x, (value, metrics))
    if group == 'generator':
      l1 = self._mel_l1(real, fake, mask)
      value, metrics = value + self.config.vocoder.mel_weight * l1, {**metrics, 'mel_l1': l1}
    return value, (metrics, stats)

  def validate(self, params, stats, frozen, batch, key, share):
    """L1 of the log-mel, without the adversary."""
    del stats, frozen, share
    mel, real, mask = self.segments(batch, key)
    l1 = self._mel_l1(real, self.vocoder.apply(params, mel) * mask, mask)
    return {'loss': l1, 'mel_l1': l1}

  def _discriminator_loss(self, params, real, fake):
    apply = self.discriminators.apply
    return hifigan_losses.discriminator_loss(
        apply(params, real), apply(params, jax.lax.stop_gradient(fake))), {}

  def _generator_loss(self, params, real, fake):
    real, fake = (self.discriminators.apply(params, wave) for wave in (real, fake))
    adversarial = hifigan_losses.adversarial_loss(fake)
    features = hifigan_losses.feature_loss(real, fake)
    return (adversarial + self.config.vocoder.feature_weight * features,
            {'adversarial': adversarial, 'features': features})

  def _mel_l1(self, real, fake, mask):
    """L1 of log-mels without surrounding audio, which generated waves lack."""
    spec = self.spec
    frames = jnp.all(mask.reshape(len(mask), -1, spec.hop), axis=-1)
    return hifigan_losses.mel_loss(
        log_mel_in_jax(real, spec), log_mel_in_jax(fake, spec), frames)

  def reconstructor(self):
    reader = Mel.of(self.models.modalities['audio'].codec)

    def reconstruct(params, stats, clip):
      del stats
      mel = batches.read(clip, 0.0, self.models.layout, reader)['mel']
      vocoder = HiFiGANVocoder(
          self.vocoder, params, self.spec, self.config.sample.vocoder_rounds)
      return {'audio': finite.checked(vocoder(mel), 'audio')}

    return reconstruct
