"""Tasks: what is trained, what stays frozen, and the loss. The protocol is task.Task.

The frozen tree is {'codec': {'params', 'std'}, 'video_codec': {'params', 'std'}, 'towers': {name:
{'dit', 'text'}}}, with the parts that the task needs (tasks/frozen.py).
"""

from avlink_jax.errors import UserError
from avlink_jax.tasks.flow import FlowTask
from avlink_jax.tasks.mel_vae import MelVAETask
from avlink_jax.tasks.upsampler import UpsamplerTask
from avlink_jax.tasks.video_vae import VideoVAETask
from avlink_jax.tasks.vocoder import VocoderTask

TASKS = {'mel_vae': MelVAETask, 'vocoder': VocoderTask, 'video_vae': VideoVAETask,
         'upsampler': UpsamplerTask}
# The codec that a task cannot do without: of which modality, and its kind.
CODECS = {'mel_vae': ('audio', 'mel_vae'), 'vocoder': ('audio', 'mel_vae'),
          'video_vae': ('video', 'video_vae'), 'upsampler': ('video', 'video_vae')}


def make(config, models):
  """Task that `config.task` names: from TASKS, or otherwise a FlowTask.

  Raises UserError: the config does not go with it."""
  if config.task in CODECS:
    name, kind = CODECS[config.task]
    tower = config.towers[name]
    if tower.features or tower.codec != kind:
      raise UserError(f'{config.task} is for the codec {kind}: leave towers.{name}.codec={kind} '
                      f'and towers.{name}.features=0')
  return TASKS.get(config.task, FlowTask)(models, config)
