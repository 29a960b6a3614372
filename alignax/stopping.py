"""Being asked to stop: by Ctrl-C, or because the machine is wanted back."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def requests() -> Iterator[Callable[[int], bool]]:
  """Gives `stop(step)`: whether the run is to save and end after this step.

  It has to be asked after every step. The step in flight ends, a checkpoint is
  written, and the same command goes on later: what a preempted machine has
  seconds for. Several processes save together or not at all, so there JAX
  agrees on a step once any of them had a SIGTERM.
  """
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  with signals() as asked:
    yield lambda step: bool(asked)


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
  """A list that is no longer empty once this process was asked to stop."""
  asked = []

  def handler(number, frame):
    del frame
    if asked and number == signal.SIGINT:  # Ctrl-C again: at once.
      raise KeyboardInterrupt
    asked.append(number)

  old = {}
  with contextlib.suppress(ValueError):  # Not the main thread: nobody asks.
    for number in (signal.SIGTERM, signal.SIGINT):
      old[number] = signal.signal(number, handler)
  try:
    yield asked
  finally:
    for number, previous in old.items():
      signal.signal(number, previous)
