"""Event loop that waits for its tasks before it closes, so that Orbax's writes all end.

Orbax writes all arrays of a State concurrently, as tasks of an event loop, and closes the loop
when the first one fails. The other writes run in threads of TensorStore and asyncio and continue:
they recreate folders that were removed meanwhile, and print tracebacks because their loop is gone.
"""

import asyncio


class PatientLoop(asyncio.SelectorEventLoop):
  """Event loop whose `close` waits for pending tasks, whether they fail or not."""

  def close(self):
    while not self.is_closed() and (tasks := asyncio.all_tasks(self)):
      self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    super().close()


class PatientPolicy(asyncio.DefaultEventLoopPolicy):
  """Policy that creates patient event loops."""

  def new_event_loop(self):
    return PatientLoop()


def install():
  """Makes this process's event loops patient from now on, unless another policy than Python's
  default is set. Calling it again has no effect."""
  if type(asyncio.get_event_loop_policy()) is asyncio.DefaultEventLoopPolicy:
    asyncio.set_event_loop_policy(PatientPolicy())
