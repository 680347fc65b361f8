"""The registry's kind 'dit': config -> the paper's DiT, in what the config wraps around it."""

from avlink_jax.errors import UserError
from avlink_jax.model import attention
from avlink_jax.model.dit import DiT
from avlink_jax.model.guided import Guided
from avlink_jax.model.local import LocalHead
from avlink_jax.model.prediction import DataPrediction, Preconditioned, ResidualPrediction
from avlink_jax.model.refine import Refine, Refined
from avlink_jax.model.wide import Wide

PREDICTIONS = ('velocity', 'data', 'preconditioned', 'residual')


def build(config, context):
  """(config.towers.NAME, tower.Context) -> tower.Tower. Raises UserError."""
  pictured, local = config.guide, config.local
  residual = config.prediction == 'residual'
  if config.prediction not in PREDICTIONS or residual and not pictured:
    raise UserError(f'towers.{context.name}.prediction={config.prediction!r}: use velocity, data '
                    'or preconditioned, or residual of a tower with a guide')
  if local and not residual:
    raise UserError(f'towers.{context.name}.local makes a residual of what a guide shows, and this '
                    'tower predicts none: set it to 0')
  if config.detail and config.prediction in ('velocity', 'preconditioned'):
    raise UserError(f'towers.{context.name}.detail is for towers that predict data or a residual, '
                    'and this one predicts none: set it to 0')
  guide = pictured + context.channels * residual  # and a first guess of the data itself
  if config.refine and (guide or len(config.patch) == 1):
    raise UserError(f'towers.{context.name}.refine is for towers of video without a guide: set it '
                    'to 0')
  attention.check(context.attention.implementation, config.width // config.heads, context.dtype)
  dit = DiT(channels=context.channels, patch=tuple(config.patch), seconds=context.seconds,
            width=config.width, depth=config.depth, heads=config.heads, mlp=config.mlp,
            text_width=context.text_width, rope_base=config.rope_base,
            input_channels=context.channels + guide, axis=context.axis,
            attention=context.attention, remat=context.remat, dtype=context.dtype)
  tower = Wide(dit, config.hidden) if config.hidden else dit
  network = Refine(config.refine, config.refine_cell, config.refine_levels, context.dtype)
  if network.width:
    tower = Refined(tower, network)
  if guide:
    tower = Guided(tower, context.dtype)
  if local:
    tower = LocalHead(tower, dit, local, pictured)
  if config.prediction == 'data':
    tower = DataPrediction(tower, config.detail)
  elif config.prediction == 'preconditioned':
    tower = Preconditioned(tower)
  elif residual:
    tower = ResidualPrediction(tower, config.detail)
  return tower
