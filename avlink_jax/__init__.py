

def __getattr__(name):
  """`avlink_jax.load` (api.py), without JAX for who does not use it."""
  if name == 'load':
    from avlink_jax.api import load
    return load
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
