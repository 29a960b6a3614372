"""What has become of a run, as it says in its directory.

`status.json` is written by whoever runs it, wherever that is; `lock` is held
for as long as its process lives, so a run that says it is running, and whose
lock is free, is one whose machine or process went without a word.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import threading
from typing import NamedTuple

from alignax.alone import try_lock
from alignax.complete import is_complete

# States. A run that was stopped or killed goes on when the sweep is run again;
# one that failed would fail again, and is tried again when asked to.
WAITING = 'waiting'
RUNNING = 'running'
DONE = 'done'
STOPPED = 'stopped'  # Asked to, by a signal; it saved a checkpoint first.
KILLED = 'killed'  # By a signal that leaves no time, or with its machine.
FAILED = 'failed'  # With an error of its own.
BLOCKED = 'blocked'  # A run that it starts from is not done.

ERROR = 1500  # Most characters of an error that are kept.
STARTS = re.compile(r'(alignax \w+: |([\w.]+\.)?[A-Z]\w+(Error|Exit|Finite)\b)')
POLL = 0.2  # Seconds between two looks at a lock.
BAR = re.compile(r'\d+%\|')


class Status(NamedTuple):
  """The state of a run, and what led to it.

  Attributes:
    state: one of the above.
    error: the last one, '' if there was none.
    attempts: how often it was started.
    seconds: for which it ran, all attempts together.
    host: where it was last.
  """

  state: str = WAITING
  error: str = ''
  attempts: int = 0
  seconds: float = 0.0
  host: str = ''


def read(directory: pathlib.Path, total_steps: int) -> Status:
  """The status of a run; what its checkpoints say counts most."""
  try:
    status = Status(**json.loads((directory / 'status.json').read_text()))
  except (FileNotFoundError, json.JSONDecodeError):
    status = Status()
  if is_complete(directory, total_steps):
    return status._replace(state=DONE, error='')
  if status.state == DONE:  # It was: somebody took its checkpoint away.
    return status._replace(state=WAITING)
  if status.state == RUNNING and not is_locked(directory):
    return status._replace(state=KILLED, error='its machine or process died')
  return status


def write(directory: pathlib.Path, status: Status):
  directory.mkdir(parents=True, exist_ok=True)
  new = directory / 'status.json.new'
  new.write_text(json.dumps(status._asdict(), indent=2) + '\n')
  new.replace(directory / 'status.json')


def write_end(directory: pathlib.Path, status: Status):
  """Says why a run is not done where nobody else did.

  It was blocked, or failed before its process came to be.
  """
  if status.state in (FAILED, BLOCKED) and not is_locked(directory):
    write(directory, status)


def last_step(directory: pathlib.Path) -> int:
  """The step of the last whole line of metrics, without reading them all."""
  try:
    with (directory / 'metrics.jsonl').open('rb') as file:
      file.seek(max(0, os.fstat(file.fileno()).st_size - 16384))
      lines = file.read().decode(errors='replace').splitlines()
  except FileNotFoundError:
    return 0
  for line in reversed(lines):
    with contextlib.suppress(json.JSONDecodeError, TypeError, KeyError):
      return json.loads(line)['step']
  return 0


@contextlib.contextmanager
def locked(directory: pathlib.Path, stopping: threading.Event | None = None):
  """Holds a run's lock; waits for whoever has it.

  Yields the open file, or None: it was asked to stop before it had the lock.
  """
  directory.mkdir(parents=True, exist_ok=True)
  stopping = stopping or threading.Event()
  with (directory / 'lock').open('w') as file:
    while not (held := try_lock(file)) and not stopping.wait(POLL):
      pass
    yield file if held else None


def is_locked(directory: pathlib.Path) -> bool:
  try:
    with (directory / 'lock').open() as file:
      # Shared: for an exclusive one NFS wants a file that is open for writing,
      # which those who only read a sweep may not be allowed.
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except FileNotFoundError:
    return False
  except BlockingIOError:
    return True
  return False


def last_error(log: str) -> str:
  """The error that a log ends with, without what led there."""
  lines = [line.rstrip() for line in re.split(r'[\r\n]', log)]
  lines = [line for line in lines if line and not BAR.search(line)]
  starts = [i for i, line in enumerate(lines) if STARTS.match(line)]
  text = '\n'.join(lines[starts[-1] :] if starts else lines[-1:])
  return text[:ERROR] or 'it wrote nothing'
