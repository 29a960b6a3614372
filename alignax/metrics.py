"""What a run leaves behind to read: metrics, samples, versions.

Metrics stay on the device until the step after has been dispatched, so that
writing them never makes the device wait.
"""

import importlib.metadata
import json
import math
import pathlib
import platform
import subprocess
import time

import jax
import numpy as np

PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'chex',
  'grain',
  'transformers',
  'numpy',
)


class Writer:
  """Writes `metrics.jsonl` and TensorBoard files, on the first process."""

  def __init__(
    self,
    workdir,
    *,
    start: int,
    tokens: int = 0,
    every: int = 1,
    tensorboard: bool = True,
  ):
    """Opens the files of a run.

    Args:
      workdir: of the run.
      start: step that the run goes on from; what was written of later steps
        (by a process that died after its last checkpoint) is dropped.
      tokens: read up to `start`.
      every: steps between two lines.
      tensorboard: whether to write TensorBoard files as well.
    """
    self.every = every
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    self._active = jax.process_index() == 0
    last = _keep_until(self._path, start) if self._active else {}
    self._tokens = tokens
    self._uncounted = []  # Of steps whose line is not written, on the device.
    self._seconds = last.get('seconds', 0.0)
    self._began = time.monotonic()
    self._pending = None
    self._file = self._path.open('a') if self._active else None
    self._board = None
    if tensorboard and self._active:
      from tensorboardX import SummaryWriter

      self._board = SummaryWriter(
        str(pathlib.Path(workdir) / 'tensorboard'), purge_step=start + 1
      )

  def write(self, step: int, metrics: dict, *, tokens: int = 0):
    """Takes the metrics of a step; returns those of an earlier one, or None.

    `tokens` counts what the step read, and is added up over the run. It may be
    an array, [], that the device has not computed yet.
    """
    self._uncounted.append(tokens)
    written = None
    if step % self.every == 0:
      written = self.flush()
      self._pending = (step, metrics, self._uncounted, self._elapsed())
      self._uncounted = []
    return written

  def flush(self) -> dict | None:
    """Writes what is pending, now; blocks until the device has it."""
    if self._pending is None:
      return None
    (step, metrics, tokens, seconds), self._pending = self._pending, None
    self._tokens += _total(tokens)
    numbers = {k: np.asarray(v).item() for k, v in metrics.items()}
    return self.line(step, numbers, self._tokens, seconds)

  @property
  def tokens(self) -> int:
    """Those of all steps; blocks until the device has them."""
    pending = self._pending[2] if self._pending else []
    return self._tokens + _total(pending) + _total(self._uncounted)

  def line(self, step: int, numbers: dict, tokens=None, seconds=None) -> dict:
    """Writes one line of plain numbers."""
    row = {
      'step': step,
      'seconds': round(self._elapsed() if seconds is None else seconds, 3),
      'tokens': self.tokens if tokens is None else tokens,
      **numbers,
    }
    if self._active:
      self._file.write(json.dumps(_null_if_not_finite(row)) + '\n')
      self._file.flush()
    if self._board:
      for name, value in numbers.items():
        self._board.add_scalar(name, value, step)
    return row

  def close(self):
    self.flush()
    if self._file:
      self._file.close()
    if self._board:
      self._board.close()

  def _elapsed(self) -> float:
    return self._seconds + time.monotonic() - self._began


def _total(tokens) -> int:
  return sum(int(np.asarray(count)) for count in tokens)


def read(workdir) -> list[dict]:
  """The lines of a run's `metrics.jsonl`; a line cut short is left out.

  What was not finite, and is null in the file, is NaN.
  """
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  rows = _read_lines(path) if path.exists() else []
  nan = lambda x: math.nan if x is None else x
  return [{k: nan(v) for k, v in row.items()} for row in rows]


def _null_if_not_finite(row: dict) -> dict:
  """JSON has no word for NaN, and most readers refuse Python's."""
  return {k: v if math.isfinite(v) else None for k, v in row.items()}


def append_samples(workdir, rows: list[dict]):
  """Adds rows to a run's `samples.jsonl`."""
  if jax.process_index() == 0:
    with (pathlib.Path(workdir) / 'samples.jsonl').open('a') as file:
      file.writelines(json.dumps(row) + '\n' for row in rows)


def drop_samples_after(workdir, step: int):
  """Drops the samples of later steps, which will be drawn again."""
  if jax.process_index() == 0:
    _keep_until(pathlib.Path(workdir) / 'samples.jsonl', step)


def write_text(path: pathlib.Path, text: str):
  """Writes a file whole or not at all, whenever the process is killed."""
  new = path.with_name(f'{path.name}.new')
  new.write_text(text)
  new.replace(path)


def versions() -> dict:
  """What a run ran with: packages, Python, devices, git commit."""
  found = {'python': platform.python_version()}
  for name in ('alignax', *PACKAGES):
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = 'not installed'
  device = jax.devices()[0]
  found['devices'] = f'{jax.device_count()} x {device.device_kind}'
  found['commit'] = _git('rev-parse', 'HEAD')
  found['changed'] = bool(_git('status', '--porcelain', '-uno'))
  return found


def _git(*args) -> str:
  here = pathlib.Path(__file__).parent
  try:
    result = subprocess.run(
      ['git', '-C', str(here), *args],
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return ''
  return result.stdout.strip()


def _keep_until(path: pathlib.Path, step: int) -> dict:
  """Drops lines of later steps and a cut last line; returns the last kept.

  A run that goes on from step 0 starts anew, and keeps none.
  """
  if not path.exists():
    return {}
  rows = _read_lines(path) if step else []
  rows = [row for row in rows if row['step'] <= step]
  write_text(path, ''.join(json.dumps(row) + '\n' for row in rows))
  return rows[-1] if rows else {}


def _read_lines(path: pathlib.Path) -> list[dict]:
  rows = []
  for text in path.read_text().splitlines():
    try:
      rows.append(json.loads(text))
    except json.JSONDecodeError:
      break  # Cut short by a kill; everything before it is whole.
  return rows
