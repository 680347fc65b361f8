"""tensorboardX without torch.

Where torch is installed tensorboardX imports it, only to know its tensors by their type: some two
seconds and hundreds of megabytes in every run. Whoever needs torch imports it as ever.
"""

import sys

_hidden = 'torch' not in sys.modules
if _hidden:
  sys.modules['torch'] = None  # the import of a module that is None fails
try:
  import tensorboardX
finally:
  if _hidden:
    del sys.modules['torch']

__all__ = ['tensorboardX']
