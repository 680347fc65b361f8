"""Everything that a sample is made of, as one short text: the same text, the same sample.

So a folder of samples can be gone on with: what is there and was made so need not be made again.
Weights are named, by step or by their files' checksums; of a clip it is the content that counts,
not the path it was read from.
"""

import hashlib
import json

from avlink_jax.storage.digest import add_tree

FORMAT = 2  # to be raised when the same settings begin to make other samples
PARTS = ('task', 'codec', 'video_codec', 'codec_loss', 'text', 'towers', 'fusion', 'flow', 'sample',
         'data')
# Of these parts, what changes nothing in a sample; of `data`, only what a sample is like counts.
INDIFFERENT = {'sample': ('count', 'batch_size', 'direction', 'upsample'), 'text': ('cache',)}
DATA = ('seconds', 'fps', 'height', 'width', 'max_fps')


def of_run(task, names, seed):
  """What all samples of a run have in common: a hash to go on from.

  Args:
    task: with the one direction that it goes.
    names: of all weights that have a part in it (trained.Trained.name, frozen.digests): JSON.
    seed: of the noise.
  """
  parts = {name: value for name, value in task.config.to_dict().items() if name in PARTS}
  parts['data'] = {name: parts['data'][name] for name in DATA}
  for part, keys in INDIFFERENT.items():
    parts[part] = {k: v for k, v in parts[part].items() if k not in keys}
  digest = hashlib.sha256(json.dumps(
      [FORMAT, parts, task.generate, names, seed], sort_keys=True).encode())
  add_tree(digest, task.decoder_weights)
  return digest


def of_sample(run, task, clip, prompts, own):
  """16 hexadecimal digits. `run` is from `of_run`; `own` says whether the user's own media is kept
  in the sample; the others are what a sampler gets."""
  digest = run.copy()
  about = [clip.id, clip.duration, clip.sample_rate, clip.features_rate, str(clip.source), prompts,
           own]
  digest.update(json.dumps(about, sort_keys=True).encode())
  # Prompts as the model gets them, so that the text encoder's weights count too.
  words = [text.prepare(sorted(prompts.values())) for text in task.models.texts.values()
           ] if task.prompted else None
  add_tree(digest, [clip.frames, clip.frame_times, clip.audio, clip.events, clip.features, words])
  return digest.hexdigest()[:16]
