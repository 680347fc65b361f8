"""Everything that a sample is made of, as one short text: the same text, the same sample.

So a folder of samples can be gone on with: what is there and was made so need not be made again.
It is the content that counts (weights, pixels, embedded words), not the paths it was read from.
"""

import hashlib
import json

import jax

from avlink_jax.storage.digest import add_tree
from avlink_jax.tasks import FlowTask
from avlink_jax.training import hosts

FORMAT = 1  # to be raised when the same settings begin to make other samples
PARTS = ('task', 'codec', 'video_codec', 'codec_loss', 'text', 'towers', 'fusion', 'flow', 'sample',
         'data')
# Of these parts, what changes nothing in a sample; of `data`, only what a sample is like counts.
INDIFFERENT = {'sample': ('count', 'batch_size', 'direction', 'upsample'), 'text': ('cache',)}
DATA = ('seconds', 'fps', 'height', 'width', 'max_fps')


def of_run(task, weights, config, seed):
  """What all samples of a run have in common: a hash to go on from.

  Args:
    task: with the one direction that it goes.
    weights: pytree of all arrays that have a part in it.
    config, seed: the run's ConfigDict; the noise's.
  """
  parts = {name: value for name, value in config.to_dict().items() if name in PARTS}
  parts['data'] = {name: parts['data'][name] for name in DATA}
  for part, names in INDIFFERENT.items():
    parts[part] = {k: v for k, v in parts[part].items() if k not in names}
  digest = hashlib.sha256(json.dumps(
      [FORMAT, parts, task.generate, seed], sort_keys=True).encode())
  add_tree(digest, jax.tree.map(whole, weights))
  return digest


def of_sample(run, task, clip, prompts, own):
  """16 hexadecimal digits. `run` is from `of_run`; `own` says whether the user's own picture or
  sound is kept in the sample; the others are what a sampler gets."""
  digest = run.copy()
  told = [clip.id, clip.duration, clip.sample_rate, clip.features_rate, str(clip.source), prompts,
          own]
  digest.update(json.dumps(told, sort_keys=True).encode())
  # Words as the model gets them, so that the text encoder's weights count too.
  words = task.models.text.prepare(sorted(prompts.values())) if isinstance(task, FlowTask) else None
  add_tree(digest, [clip.frames, clip.frame_times, clip.audio, clip.events, clip.features, words])
  return digest.hexdigest()[:16]


def whole(leaf):
  """An array that is sharded over several hosts, gathered on each; any other itself."""
  sharded = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
  return hosts.gather(leaf) if sharded else leaf
