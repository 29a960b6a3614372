"""Checkers in processes of their own, which may raise, hang or crash.

The processes are started afresh, not forked: a fork of a process that runs JAX
can deadlock. What passes between is JSON. A response that takes too long costs
its process, which is replaced, and nothing else.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

START = 300.0  # Seconds in which a process must have imported its checker.
WORKER = pathlib.Path(__file__).with_name('worker.py')


class Verdict(NamedTuple):
  """What a checker made of a response.

  Attributes:
    numbers: by name; empty if it failed.
    failure: '', 'raised', 'timeout', 'crashed' or 'not finite'.
    message: of the failure, for people.
  """

  numbers: dict[str, float]
  failure: str = ''
  message: str = ''


class CheckerError(RuntimeError):
  """A checker that cannot even be started."""


class Pool:
  """Processes that run one checker; close it, or use it in `with`."""

  def __init__(
    self,
    checker: str,
    *,
    kw: Mapping = (),
    timeout: float = 5.0,
    workers: int = 0,
  ):
    """Starts the processes; they import the checker in the background.

    Args:
      checker: dotted name of a function (row, response, **kw) -> a number, or
        numbers by name.
      kw: its arguments.
      timeout: seconds for a response.
      workers: processes; 0 is one for each core, and at most 8.
    """
    check_timeout(timeout)
    if workers < 0:
      raise ValueError(f'workers is {workers}; it is 0 or more.')
    count = workers or min(os.cpu_count() or 1, 8)
    start = dict(
      path=sys.path, checker=checker, kw=dict(kw), timeout=float(timeout)
    )
    self.checker, self.timeout = checker, timeout
    self._threads = concurrent.futures.ThreadPoolExecutor(count)
    self._idle = queue.SimpleQueue()
    self._workers = [_Worker(start) for _ in range(count)]
    for worker in self._workers:
      self._idle.put(worker)

  def check(self, items: Iterable[tuple[dict, str]]) -> list[Verdict]:
    """The verdict on every (row, response), in order."""
    return list(self._threads.map(self._check_one, items))

  def close(self):
    """Ends the processes, whatever they are doing."""
    self._threads.shutdown(cancel_futures=True, wait=False)
    for worker in self._workers:
      worker.kill()
    self._threads.shutdown()  # Those that waited for an answer have seen it.
    for worker in self._workers:
      worker.stop()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def _check_one(self, item) -> Verdict:
    row, response = item
    request = json.dumps({'row': row, 'response': response}, default=plain)
    worker = self._idle.get()
    try:
      return worker.check(request, self.timeout)
    finally:
      self._idle.put(worker)


class _Worker:
  """One process, replaced by a new one where it was lost."""

  def __init__(self, start: dict):
    self.start = json.dumps(start)
    self.process, self.ready = None, False
    self.launch()

  def launch(self):
    # An accelerator belongs to the training process; sets have one order.
    more = {'JAX_PLATFORMS': 'cpu', 'PYTHONHASHSEED': '0'}
    self.process = subprocess.Popen(
      [sys.executable, str(WORKER)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env=os.environ | more,
      start_new_session=True,  # Ctrl-C is for the run; and to end its children.
    )
    self.buffer, self.ready = b'', False
    self.send(self.start)

  def check(self, request: str, timeout: float) -> Verdict:
    if self.process is None:
      self.launch()
    if not self.ready:
      self.wait_until_ready()
    self.send(request)
    found = self.receive(timeout)
    if found is None:
      code = self.process.poll()
      self.stop()
      if code is None:
        return Verdict({}, 'timeout', f'no answer in {timeout:g} seconds')
      return Verdict({}, 'crashed', f'its process ended with code {code}')
    if 'error' in found:
      return Verdict({}, 'raised', found['error'])
    return Verdict(found['numbers'])

  def wait_until_ready(self):
    found = self.receive(START)
    if found is None or 'error' in found:
      name = json.loads(self.start)['checker']
      code = self.process.poll()
      why = f'it is not imported after {START:g} seconds'
      if code is not None:
        why = f'its process ended with code {code}'
      if found:
        why = found['error']
      self.stop()
      raise CheckerError(f'The checker {name} does not start: {why}.')
    self.ready = True

  def send(self, line: str):
    # If it is gone, the missing answer will tell.
    with contextlib.suppress(BrokenPipeError):
      self.process.stdin.write(line.encode() + b'\n')
      self.process.stdin.flush()

  def receive(self, timeout: float) -> dict | None:
    """The next answer; None if it does not come in time, or never will."""
    end = time.monotonic() + timeout
    pipe = self.process.stdout.fileno()
    while b'\n' not in self.buffer:
      left = max(end - time.monotonic(), 0)
      if not select.select([pipe], [], [], left)[0]:
        return None
      more = os.read(pipe, 1 << 16)
      if not more:
        self.process.wait()
        return None
      self.buffer += more
    line, _, self.buffer = self.buffer.partition(b'\n')
    return json.loads(line)

  def kill(self):
    process = self.process
    if process is not None and process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)  # Its children, too.

  def stop(self):
    if self.process is None:
      return
    self.kill()
    self.process.wait()
    self.process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
      self.process.stdin.close()
    self.process = None


def check_timeout(timeout: float):
  if not timeout > 0:
    raise ValueError(f'timeout is {timeout}; give seconds, more than 0.')


def plain(value):
  """A value of a row that JSON does not know, as one that it does."""
  if hasattr(value, 'tolist'):  # numpy
    return value.tolist()
  return str(value)
