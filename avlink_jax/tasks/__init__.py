"""What each task trains, what it keeps frozen, and its loss.

A task is an object with

    reads                        what it reads of a clip (data/batch.py)
    modalities, generate         what it knows, what it makes of that
    frozen_parts                 what it needs of `weights.load_frozen`
    players                      () where one loss trains everything; else the subtrees of the
                                 parameters that have a loss and an optimiser each, in the order
                                 in which a step updates them
    pace(player)                 what a player's learning rate is multiplied by
    init(key, frozen)            -> trainable parameters (with players: a dict with their names)
    init_stats()                 -> running statistics that are not trained
    sampled(params)              -> the part of them that is averaged, exported and sampled from
    loss(params, stats, frozen, batch, key, step, player)
                                 -> scalar, (metrics, stats); `player` is None without players,
                                 and these tasks take `part` too: what takes a part of the examples
                                 of an array (step.part_of). Losses, metrics and gradients of all
                                 parts add up to those of the batch.

and the trainer knows nothing else of it. `frozen` is {'codec': {'params', 'std'}, 'video_codec':
{'params', 'std'}, 'towers': {name: {'dit', 'text'}}}, as much of it as the task needs.
"""

from avlink_jax.tasks.flow import FlowTask
from avlink_jax.tasks.mel_vae import MelVAETask
from avlink_jax.tasks.upsampler import UpsamplerTask
from avlink_jax.tasks.video_vae import VideoVAETask
from avlink_jax.tasks.vocoder import VocoderTask


def make(config, models):
  """The task that `config.task` names."""
  return {'mel_vae': MelVAETask, 'vocoder': VocoderTask, 'video_vae': VideoVAETask,
          'upsampler': UpsamplerTask}.get(config.task, FlowTask)(models, config)
