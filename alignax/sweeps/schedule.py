"""Which run is next: stages first, and whatever becomes of another."""

import concurrent.futures as futures
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from alignax.sweeps import state
from alignax.sweeps.plan import Planned
from alignax.sweeps.state import Status

EVERY = 30.0  # Seconds between two lines of progress.
OVER = (state.FAILED, state.KILLED, state.STOPPED, state.BLOCKED)

# (run, slot) -> how it went; a slot is a number below `jobs` that no other run
# has at the time, or None where no other can run before this one is done.
Execute = Callable[[Planned, int | None], Status]


@dataclasses.dataclass
class Progress:
  """What is known of all runs, for those who watch."""

  plan: Sequence[Planned]
  statuses: dict[str, Status]
  started: dict[str, float]  # Of those that run: when, on our clock.

  def count(self, *states: str) -> int:
    return sum(s.state in states for s in self.statuses.values())


def run_all(
  plan: Sequence[Planned],
  statuses: Mapping[str, Status],
  execute: Execute,
  *,
  jobs: int,
  tell: Callable[[Progress, str], None],
  stopping: threading.Event,
  every: float = EVERY,
) -> dict[str, Status]:
  """Executes every run that waits, once those that it starts from are done.

  Args:
    plan: runs, each after those that it starts from.
    statuses: of all of them, by id; those that wait are executed.
    execute: does it, in a thread.
    jobs: how many at a time.
    tell: is called with the progress and the id of a run that started or
      ended, and with '' every now and then.
    stopping: once set, nothing more is started.
    every: seconds between two calls of `tell` when nothing happens.

  Returns:
    The statuses at the end.
  """
  seen = Progress(plan, dict(statuses), {})
  free = list(range(jobs))
  with futures.ThreadPoolExecutor(jobs) as pool:
    at_work: dict[futures.Future, tuple[Planned, int]] = {}
    while True:
      _block(plan, seen.statuses)
      ready = _ready(plan, seen.statuses)
      alone = len(ready) == 1 and not at_work
      for run in ready:
        if not free or stopping.is_set():
          break
        slot = free.pop(0)
        seen.statuses[run.id] = Status(state.RUNNING)
        seen.started[run.id] = time.monotonic()
        future = pool.submit(execute, run, None if alone else slot)
        at_work[future] = run, slot
        tell(seen, run.id)
      if not at_work:
        return seen.statuses
      done = futures.wait(at_work, every, futures.FIRST_COMPLETED).done
      if not done:
        tell(seen, '')
      for future in done:
        run, slot = at_work.pop(future)
        free.append(slot)
        seen.statuses[run.id] = _result(future)
        seen.started.pop(run.id)
        tell(seen, run.id)


def _result(future) -> Status:
  """What an execution came to; one that raised takes no other run along."""
  error = future.exception()
  if error is None:
    return future.result()
  return Status(state.FAILED, f'{type(error).__name__}: {error}'[: state.ERROR])


def _ready(plan, statuses) -> list[Planned]:
  return [
    run
    for run in plan
    if statuses[run.id].state == state.WAITING
    and all(statuses[s].state == state.DONE for s in run.after.values())
  ]


def _block(plan, statuses):
  """Marks what can no longer run, as a run that it starts from is over."""
  for run in plan:
    if statuses[run.id].state != state.WAITING:
      continue
    over = [s for s in run.after.values() if statuses[s].state in OVER]
    if over:
      names = {other.id: other.name for other in plan}
      what = ', '.join(
        f'{names[s]!r}, which is {statuses[s].state}' for s in over
      )
      statuses[run.id] = Status(state.BLOCKED, f'it starts from {what}')


def seconds_left(progress: Progress, jobs: int) -> float | None:
  """About how long the rest takes; None before any run has ended.

  A run takes as long as the others of its algorithm did on the mean, or as
  long as all did where none has ended.
  """
  took: dict[str, list[float]] = {}
  for run in progress.plan:
    status = progress.statuses[run.id]
    if status.state == state.DONE and status.seconds:
      took.setdefault(_kind(run), []).append(status.seconds)
  every = [s for group in took.values() for s in group]
  if not every:
    return None
  left = []
  for run in progress.plan:
    mine = took.get(_kind(run), every)
    typical = sum(mine) / len(mine)
    began = progress.started.get(run.id)
    if began is not None:
      left.append(max(0.0, typical - (time.monotonic() - began)))
    elif progress.statuses[run.id].state == state.WAITING:
      left.append(typical)
  return max(sum(left) / jobs, max(left, default=0.0))


def _kind(run: Planned) -> str:
  return run.id.rsplit('-', 1)[0]
