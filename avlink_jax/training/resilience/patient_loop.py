"""An event loop that ends only when its tasks have: what Orbax starts, it also finishes.

Orbax writes all arrays of a State side by side, as tasks of an event loop, and closes the loop
with the first one that fails. The writes of the others run in threads of TensorStore and asyncio
and know nothing of that: they go on, make folders anew that were removed meanwhile, and print
tracebacks as there is no loop any more to report to.
"""

import asyncio


class PatientLoop(asyncio.SelectorEventLoop):
  """An event loop whose `close` waits for the tasks it still has, whether they fail or not."""

  def close(self):
    while not self.is_closed() and (tasks := asyncio.all_tasks(self)):
      self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    super().close()


class PatientPolicy(asyncio.DefaultEventLoopPolicy):
  """A policy under which new event loops are patient."""

  def new_event_loop(self):
    return PatientLoop()


def install():
  """Makes the event loops of this process patient from now on, unless another policy than
  Python's own was chosen. Calling it again changes nothing."""
  if type(asyncio.get_event_loop_policy()) is asyncio.DefaultEventLoopPolicy:
    asyncio.set_event_loop_policy(PatientPolicy())
