"""Notice that a run which is made longer after its decay began trains at a high rate again."""

from avlink_jax.training.step import learning_rate


def notice(saved, config, step):
  """Text for the user where a run that goes on at `step` has a higher learning rate than it would
  have had with its saved config (a ConfigDict), as its decay had begun; '' else."""
  old, new = (float(learning_rate(c)(min(step, c.train.steps))) for c in (saved, config))
  if saved.train.learning_rate != config.train.learning_rate or not new > 1.01 * old:
    return ''
  return (f'the learning rate had fallen to {old:.3g} by step {step} and rises to {new:.3g} again, '
          f'as train.steps={config.train.steps} and train.decay_steps={config.train.decay_steps} '
          'put the decay elsewhere; to go on with a low one: --allow_drift=train.learning_rate '
          '--config.train.learning_rate=RATE')
