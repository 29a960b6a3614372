"""Runs as they lie on disk, whatever state they are in."""

import dataclasses
import json
import pathlib
import re

from alignax import metrics


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run left behind.

  Attributes:
    name: its directory's, as far as it tells it from the others.
    path: its directory.
    config: values by dotted key.
    lines: of `metrics.jsonl`.
    samples: of `samples.jsonl`.
    estimates: of `eval.json`: mean, low, high and n by metric; empty if the
      run was not evaluated where it ended.
  """

  name: str
  path: pathlib.Path
  config: dict
  lines: list[dict]
  samples: list[dict]
  estimates: dict[str, dict]

  @property
  def step(self) -> int | None:
    """The last step that was written, None if there is none."""
    return max((line['step'] for line in self.lines), default=None)

  @property
  def total(self) -> int | None:
    return self.config.get('total_steps')

  @property
  def finished(self) -> bool:
    return None not in (self.step, self.total) and self.step >= self.total

  @property
  def status(self) -> str:
    """'done', or how far it came."""
    if self.finished:
      return 'done'
    if self.step is None:
      return 'nothing measured'
    return f'ended at step {self.step} of {self.total or "?"}'

  def last(self) -> dict[str, float]:
    """The last value of every metric."""
    found = {}
    for line in self.lines:
      found |= {k: v for k, v in line.items() if v is not None}
    return found

  def curve(self, metric: str) -> list[tuple[float, float]]:
    """(step, value) wherever the metric was written."""
    return [
      (line['step'], line[metric])
      for line in self.lines
      if line.get(metric) is not None
    ]


def find_runs(paths) -> list[Run]:
  """The runs in directories: themselves, or any below.

  Runs inside a run (the stages that it started from) are left out, unless
  named.

  Raises:
    FileNotFoundError: a directory that is not there, or has no run.
  """
  found = []
  for path in map(pathlib.Path, paths):
    if not path.is_dir():
      raise FileNotFoundError(f'{path} is no directory.')
    below = list(_below(path))
    if not below:
      raise FileNotFoundError(
        f'{path} holds no run, which has a config.json and a metrics.jsonl.'
      )
    found += [p for p in below if p not in found]
  return [read(path, name) for path, name in zip(found, _names(found))]


def _below(path: pathlib.Path):
  if is_run(path):
    yield path
    return
  for child in sorted(p for p in path.iterdir() if p.is_dir()):
    if not child.name.startswith('.'):
      yield from _below(child)


def is_run(path: pathlib.Path) -> bool:
  """Whether a directory is of a run, one that died at its start included."""
  files = ('metrics.jsonl', 'versions.json')
  return (path / 'config.json').exists() and any(
    (path / name).exists() for name in files
  )


def _names(paths) -> list[str]:
  """As much of the end of every path as makes them differ."""
  parts = [path.absolute().parts for path in paths]
  for size in range(1, max(map(len, parts), default=0) + 1):
    names = ['/'.join(p[-size:]) for p in parts]
    if len(set(names)) == len(names):
      return names
  return [str(path) for path in paths]


def read(path: pathlib.Path, name: str) -> Run:
  """One run; files that it has not, or only half, count as empty."""
  lines = metrics.read(path)
  evaluation = _json(path / 'eval.json')
  step = max((line['step'] for line in lines), default=None)
  current = evaluation.get('step') == step
  return Run(
    name=name,
    path=path,
    config=_flat(_json(path / 'config.json')),
    lines=lines,
    samples=_json_lines(path / 'samples.jsonl'),
    estimates=evaluation.get('metrics', {}) if current else {},
  )


def _json(path: pathlib.Path) -> dict:
  try:
    return json.loads(path.read_text())
  except (FileNotFoundError, json.JSONDecodeError):
    return {}


def _json_lines(path: pathlib.Path) -> list[dict]:
  if not path.exists():
    return []
  rows = []
  for line in path.read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break  # Cut short by a kill.
  return rows


def _flat(config: dict, prefix: str = '') -> dict:
  flat = {}
  for key, value in config.items():
    if isinstance(value, dict):
      flat |= _flat(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def comparable(config: dict) -> dict:
  """A config without its seed, and without where its run happens to lie."""
  return {
    # A stage's place depends on the run that made it; its name does not.
    key: re.sub(r'.*/stages/', '', value) if isinstance(value, str) else value
    for key, value in config.items()
    if key != 'seed'
  }
