"""Velocity of windows: what sampling evaluates at each step, and what it computes once a sample."""

from typing import Any

import flax
import jax
import jax.numpy as jnp

from avlink_jax import flow
from avlink_jax.model.tower import Input


@flax.struct.dataclass
class Fixed:
  """What stays as it is from step to step, of a batch of windows.

  masks: {name: bool (W, T)}. prompt, null: {name: fields text and text_mask of a tower's Input};
  null, the empty or the negative prompt, of generated modalities only. conditions: {name: Input} of
  the others, and begun: what the link computes of them once (task.begin). guide: further fields of
  a generated tower's Input.
  """
  masks: dict[str, jax.Array]
  prompt: dict[str, dict]
  null: dict[str, dict]
  conditions: dict[str, Input]
  begun: Any
  guide: dict[str, jax.Array]


def fix(task, params, frozen, batch, noise):
  """Fixed of the windows in `batch`, with X_0 of all data with noise in `noise`."""
  towers = task.towers(params, frozen)
  prompt, null, masks, conditions = {}, {}, {}, {}
  for name in task.modalities:
    prompt[name] = task.encode(towers, name, batch.get(f'{name}_text'))
    masks[name] = task.mask(batch, name)
    if name in task.generate:
      negative = batch.get(f'{name}_negative_text')
      null[name] = jax.tree.map(
          lambda x, like: jnp.broadcast_to(x, like.shape),
          task.encode(towers, name, task.null(name) if negative is None else negative),
          prompt[name])
    else:
      t = task.condition_time(name, masks[name].shape[:1])
      x = task.clean(frozen, batch, name)
      x = flow.interpolate(x, noise[name], t) if name in noise else x
      conditions[name] = task.input_type(x=x, t=t, mask=masks[name], **prompt[name])
  guide = {} if task.guide is None else task.guide.fixed(frozen, batch, noise)
  return Fixed(masks, prompt, null, conditions, task.begin(params, frozen, conditions), guide)


def evaluate(task, schedule, params, frozen, fixed, guidance, x, t, kept):
  """Velocities of the generated modalities under guidance, each window by itself.

  Args:
    task, schedule, guidance: as in sampler.generate.
    fixed: Fixed of these windows.
    x: {name: (W, T, ...)}; t: {name: flow time, () array}.
    kept: None, or what an earlier evaluation returned, whose conditioning streams stand.
  Returns:
    {name: velocity}, and `kept` for later evaluations.
  """
  inputs = {name: task.input_type(
      x=x[name], t=jnp.full(x[name].shape[:1], t[name]), mask=fixed.masks[name],
      **fixed.prompt[name], **fixed.guide) for name in x}
  given = {name: (inputs | fixed.conditions)[name] for name in task.modalities}
  if schedule.refresh > 1 and kept is None:
    velocities, kept = task.refresh(params, frozen, given, fixed.begun)
  else:
    velocities = task.velocity(params, frozen, given, fixed.begun if kept is None else kept)
  if guidance is None:
    return velocities, kept
  bare = task.bare(params, frozen)

  def guided(name, v):
    # The unconditional pass: the generated tower alone, without Fusion Blocks or prompt. So it
    # needs nothing of the conditioning stream.
    unconditional = task.models.towers[name].velocity(
        bare[name], inputs[name].replace(**fixed.null[name]))
    return flow.guide(v, unconditional, guidance)

  def within(name, v):
    if schedule.always_guided:
      return guided(name, v)
    inside = (schedule.guidance_from <= t[name]) & (t[name] <= schedule.guidance_to)
    return jax.lax.cond(inside, lambda v: guided(name, v), lambda v: v, v)

  return {name: within(name, v) for name, v in velocities.items()}, kept
