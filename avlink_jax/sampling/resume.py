"""Fingerprints of samples: equal fingerprints mean equal samples.

They let an interrupted export resume: existing samples with the right fingerprint are kept. Weights
enter by name (their step, or their files' checksums), clips by content, not by path.
"""

import hashlib
import json

from avlink_jax.storage.digest import add_tree

FORMAT = 4  # increase it when the same settings give different samples
PARTS = ('task', 'codec', 'video_codec', 'codec_loss', 'text', 'texts', 'towers', 'fusion', 'flow',
         'sample', 'data')
# Keys of these parts that do not affect samples; of `data`, only the keys in DATA do.
INDIFFERENT = {'sample': ('count', 'batch_size', 'direction', 'upsample'), 'text': ('cache',),
               'texts': ('cache',)}
DATA = ('seconds', 'fps', 'height', 'width', 'max_fps')


def of_run(task, names, seed):
  """Hash object of everything that a run's samples have in common.

  Args:
    task: a task with one direction.
    names: JSON-like names of all weights involved (trained.Trained.name, frozen.digests).
    seed: the noise's seed.
  """
  parts = {name: value for name, value in task.config.to_dict().items() if name in PARTS}
  parts['data'] = {name: parts['data'][name] for name in DATA}
  for part, keys in INDIFFERENT.items():
    if part in parts:  # a config has `text` or `texts`
      parts[part] = _without(parts[part], keys)
  digest = hashlib.sha256(json.dumps(
      [FORMAT, parts, task.generate, names, seed], sort_keys=True).encode())
  add_tree(digest, task.decoder_weights)
  return digest


def _without(part, keys):
  """A part of a config without these keys, at any depth."""
  return {k: _without(v, keys) if isinstance(v, dict) else v
          for k, v in part.items() if k not in keys}


def of_sample(run, task, clip, prompts, own):
  """Fingerprint of a sample, 16 hexadecimal digits. `run` is from `of_run`; `own`: whether the
  user's own media are kept in the sample; the others are the sampler's arguments."""
  digest = run.copy()
  about = [clip.id, clip.duration, clip.sample_rate, clip.features_rate, str(clip.source), prompts,
           own]
  digest.update(json.dumps(about, sort_keys=True).encode())
  # Prompts as prepared for the model, which depend on the text encoder's weights too.
  words = [text.prepare(sorted(prompts.values())) for text in task.texts.values()
           ] if task.prompted else None
  add_tree(digest, [clip.frames, clip.frame_times, clip.audio, clip.events, clip.features, words])
  return digest.hexdigest()[:16]
