"""What a data source is, wherever it lies: by it a run knows its data again at another path.

A source's `identity` is JSON-like: names, sizes and digests of what it was opened from, of the
split that is read, and no path.
"""

from avlink_jax.storage import digest


def of(source) -> str | None:
  """Identity of a data source as 32 hexadecimal digits; None of one that has none."""
  content = getattr(source, 'identity', None)
  return None if content is None else digest.key(content)
