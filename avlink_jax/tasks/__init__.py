"""Tasks: what is trained, what stays frozen, and the loss. The protocol is task.Task.

The frozen tree is {'codec': {'params', 'std'}, 'video_codec': {'params', 'std'}, 'towers': {name:
{'dit', 'text'}}}, with the parts that the task needs (tasks/frozen.py).
"""

from avlink_jax.tasks.flow import FlowTask
from avlink_jax.tasks.mel_vae import MelVAETask
from avlink_jax.tasks.upsampler import UpsamplerTask
from avlink_jax.tasks.video_vae import VideoVAETask
from avlink_jax.tasks.vocoder import VocoderTask

TASKS = {'mel_vae': MelVAETask, 'vocoder': VocoderTask, 'video_vae': VideoVAETask,
         'upsampler': UpsamplerTask}


def make(config, models):
  """Task that `config.task` names: from TASKS, or otherwise a FlowTask."""
  return TASKS.get(config.task, FlowTask)(models, config)
