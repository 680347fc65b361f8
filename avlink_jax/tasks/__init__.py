"""What each task trains, what it keeps frozen, and its loss. The protocol is task.Task.

`frozen` is {'codec': {'params', 'std'}, 'video_codec': {'params', 'std'}, 'towers': {name: {'dit',
'text'}}}, as much of it as the task needs.
"""

from avlink_jax.tasks.flow import FlowTask
from avlink_jax.tasks.mel_vae import MelVAETask
from avlink_jax.tasks.upsampler import UpsamplerTask
from avlink_jax.tasks.video_vae import VideoVAETask
from avlink_jax.tasks.vocoder import VocoderTask

TASKS = {'mel_vae': MelVAETask, 'vocoder': VocoderTask, 'video_vae': VideoVAETask,
         'upsampler': UpsamplerTask}


def make(config, models):
  """The task that `config.task` names; one that generates by a flow unless it stands in TASKS."""
  return TASKS.get(config.task, FlowTask)(models, config)
