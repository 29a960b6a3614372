"""One run, on this machine: the same for every backend."""

import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from alignax.complete import is_complete
from alignax.sweeps import state
from alignax.sweeps.plan import Planned
from alignax.sweeps.state import Status

LOG = 'log.txt'
POLL = 0.2  # Seconds between two looks at a process.


def execute(
  run: Planned,
  workdir,
  *,
  environment: Mapping[str, str] | None = None,
  cores: Sequence[int] | None = None,
  cwd: str | None = None,
  stopping: threading.Event | None = None,
) -> Status:
  """Trains a run, from its last checkpoint if it has one, and says how it went.

  The process keeps the run's lock: should whoever started it die, another
  waits for it to end before going on from where it came.

  Args:
    run: which.
    workdir: of the sweep.
    environment: variables to change.
    cores: that the process may use; None for all that this one may.
    cwd: where to run it; configs are named as seen from there.
    stopping: once set, the process is asked to save and stop.
  """
  directory = run.directory(workdir)
  with state.locked(directory, stopping) as lock:
    before = state.read(directory, run.total_steps)
    if before.state == state.DONE:
      return before
    if lock is None:  # Another has it, and writes what becomes of it.
      return before._replace(state=state.STOPPED)
    began = time.monotonic()
    status = before._replace(
      state=state.RUNNING, error='', attempts=before.attempts + 1,
      host=socket.gethostname(),
    )  # fmt: skip
    state.write(directory, status)
    with (directory / LOG).open('a+') as log:
      start = log.seek(0, os.SEEK_END)
      process = subprocess.Popen(
        command(run, workdir),
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        # A signal for all of a terminal is passed on, once, by `_wait`.
        start_new_session=True,
        pass_fds=(lock.fileno(),),
      )
      if cores is not None and hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(process.pid, cores)
      code = _wait(process, stopping or threading.Event())
      log.seek(start)
      text = log.read()
    after = _ended(run, directory, code, text)
    seconds = before.seconds + time.monotonic() - began
    status = status._replace(seconds=round(seconds, 1), **after)
    state.write(directory, status)
  return status


def command(run: Planned, workdir) -> list[str]:
  """What trains a run; ALIGNAX, as for `launch/`, may name another alignax.

  Such as one in a container: ALIGNAX='apptainer exec alignax.sif alignax'.
  """
  given = os.environ.get('ALIGNAX', '')
  alignax = shlex.split(given) or [sys.executable, '-m', 'alignax.cli']
  return [*alignax, 'train', *run.arguments(workdir)]


def _wait(process: subprocess.Popen, stopping: threading.Event) -> int:
  """The exit status of a process, which is asked to stop when we are."""
  asked = False
  while True:
    try:
      return process.wait(POLL)
    except subprocess.TimeoutExpired:
      pass
    except KeyboardInterrupt:
      stopping.set()
    if stopping.is_set() and not asked:
      process.terminate()
      asked = True


def _ended(run: Planned, directory: pathlib.Path, code: int, log: str) -> dict:
  if is_complete(directory, run.total_steps):
    return dict(state=state.DONE)
  if code == 0:
    return dict(state=state.STOPPED)
  if code < 0:
    name = signal.Signals(-code).name
    more = ', as when memory runs out' if name == 'SIGKILL' else ''
    return dict(state=state.KILLED, error=f'killed by {name}{more}')
  return dict(state=state.FAILED, error=state.last_error(log))
