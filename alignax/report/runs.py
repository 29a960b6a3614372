"""Runs as they lie on disk, whatever state they are in."""

import dataclasses
import hashlib
import json
import pathlib
import re
import shlex
from collections.abc import Sequence

from alignax import metrics, stages
from alignax.sweeps import plan as plans


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run left behind.

  Attributes:
    name: its directory's, as far as it tells it from the others.
    path: its directory.
    config: values by dotted key.
    sources: of these, what it starts from; see `stages.sources`.
    lines: of `metrics.jsonl`.
    samples: of `samples.jsonl`.
    estimates: of `eval.json`: mean, low, high and n by metric; empty if the
      run was not evaluated where it ended.
    state: of a run of a sweep, such as 'failed'; '' of any other.
    error: what it died of, where that is known.
    command: what runs it alone, where that is known and would work.
    first: runs of the sweep that are to end before it can be run alone.
    also: other names that the sweep has for the same config.
    kept: the step whose model it ended with, of a run that went back to it.
  """

  name: str
  path: pathlib.Path
  config: dict
  sources: dict[str, str]
  lines: list[dict]
  samples: list[dict]
  estimates: dict[str, dict]
  state: str = ''
  error: str = ''
  command: str = ''
  first: tuple[str, ...] = ()
  also: tuple[str, ...] = ()
  kept: int | None = None

  @property
  def step(self) -> int | None:
    """The last step that was written, None if there is none."""
    return max((line['step'] for line in self.lines), default=None)

  @property
  def total(self) -> int | None:
    return self.config.get('total_steps')

  @property
  def finished(self) -> bool:
    if self.state:
      return self.state == 'done'
    return None not in (self.step, self.total) and self.step >= self.total

  @property
  def status(self) -> str:
    """'done', or how far it came."""
    if self.finished and self.kept is not None:
      return f'done, went back to step {self.kept} of {self.total or "?"}'
    if self.finished:
      return 'done'
    if self.step is None:
      return self.state or 'nothing measured'
    return f'{self.state or "ended"} at step {self.step} of {self.total or "?"}'

  def last(self) -> dict[str, float]:
    """The last value of every metric, of the model that was kept."""
    found = {}
    for line in self.until_kept(self.lines):
      found |= {k: v for k, v in line.items() if v is not None}
    return found

  def until_kept(self, rows: list[dict]) -> list[dict]:
    """Without those of later steps: why a run went back, not where it is."""
    if self.kept is None:
      return rows
    return [row for row in rows if row['step'] <= self.kept]

  def curve(self, metric: str) -> list[tuple[float, float]]:
    """(step, value) wherever the metric was written."""
    return [
      (line['step'], line[metric])
      for line in self.lines
      if line.get(metric) is not None
    ]


def find_runs(paths) -> list[Run]:
  """The runs in directories: themselves, or any below; of a sweep, its runs.

  Runs inside a run (the stages that it started from) are left out, unless
  named, and so are those of a sweep that it no longer has. Runs of a sweep
  that were never started are there, and empty.

  Raises:
    FileNotFoundError: a directory that is not there, or has no run.
  """
  found, swept = [], []
  for path in map(pathlib.Path, paths):
    if not path.is_dir():
      raise FileNotFoundError(f'{path} is no directory.')
    if (path / 'sweep.json').exists():
      swept += _swept(path)
      continue
    below = list(_below(path))
    if not below:
      raise FileNotFoundError(
        f'{path} holds no run, which has a config.json and a metrics.jsonl.'
      )
    found += [p for p in below if p not in found]
  alone = [read(path, name) for path, name in zip(found, _names(found))]
  return _named_sources([*alone, *swept])


def _swept(path: pathlib.Path) -> list[Run]:
  return of_plan(plans.load(path), path)


def of_plan(plan, path) -> list[Run]:
  """The runs of a sweep's plan, under the names that it has for them."""
  # Only here: it takes Orbax to say what is done.
  from alignax.sweeps import state

  found = []
  read_state = lambda p: state.read(p.directory(path), p.total_steps)
  statuses = {planned.id: read_state(planned) for planned in plan}
  names = {planned.id: planned.name for planned in plan}
  for planned in plan:
    status = statuses[planned.id]
    run = read(planned.directory(path), planned.name)
    # On its own a run starts from whatever a stage has, half-trained or not.
    first = [s for s in planned.after.values()
             if statuses[s].state != state.DONE]  # fmt: skip
    command = f'alignax train {shlex.join(planned.arguments(path))}'
    found.append(
      dataclasses.replace(
        run,
        config={'total_steps': planned.total_steps, **run.config},
        state=status.state,
        error=status.error,
        command='' if first else command,
        first=tuple(names[s] for s in first),
        also=planned.also,
      )
    )
  return found


def _named_sources(runs: list[Run]) -> list[Run]:
  """Runs whose configs name a run that they start from, not its directory.

  By its name and a hash of its config, both without a seed: runs that start
  from several seeds of one stage then differ by their seed only.
  """
  by_path = {str(run.path.absolute()): run for run in runs}
  digests = {}

  def digest(path: str) -> str:
    if path not in digests:
      run = by_path[path]
      config = _put(run.config, {k: digest(p) for k, p in sources(run)})
      text = json.dumps(comparable(config), sort_keys=True)
      digests[path] = hashlib.sha256(text.encode()).hexdigest()[:6]
    return digests[path]

  def sources(run: Run):
    paths = {k: str(pathlib.Path(source).absolute())
             for k, source in run.sources.items()}  # fmt: skip
    return [(k, p) for k, p in paths.items() if p in by_path]

  named = [{k: digest(p) for k, p in sources(run)} for run in runs]
  alike = {d: [by_path[p].name for p in digests if digests[p] == d]
           for d in digests.values()}  # fmt: skip
  name = lambda d: f'{common_name(alike[d])} ({d})'
  return [
    dataclasses.replace(
      run, config=_put(run.config, {k: name(d) for k, d in ours.items()})
    )
    for run, ours in zip(runs, named)
  ]


def _put(config: dict, values: dict) -> dict:
  """A config with other values; 'members.0' is the first of a list."""
  config = dict(config)
  for key, value in values.items():
    owner, _, last = key.rpartition('.')
    if owner in config:
      members = list(config[owner])
      members[int(last)] = value
      config[owner] = members
    else:
      config[key] = value
  return config


def common_name(names: Sequence[str]) -> str:
  """Of runs that differ by their seed; of a single one, all of its name."""
  short = set(map(unseeded, names))
  return short.pop() if len(names) > 1 and len(short) == 1 else names[0]


def unseeded(name: str) -> str:
  """A name without the seed that it says or ends with."""
  said = re.sub(r'[ ,]seed=\d+', '', name)
  if said != name or '=' in name.rsplit(' ', 1)[-1]:  # beta=0.1 is no seed.
    return said
  if re.search(r'\d[.,]\d+$', name):  # Nor is a part of 4,000 or of 0.1.
    return name
  return re.sub(r'[-_./ ]?(seed|s)?[-_=]?\d+$', '', name) or name


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
  # Only here: it takes Orbax to say what is done.
  from alignax import complete

  config = _json(path / 'config.json')
  lines = metrics.read(path)
  kept = (complete.ended(path) or {}).get('step')
  total = config.get('total_steps')
  # The last lines may lack: they are written every so many steps.
  over = total is not None and complete.is_complete(path, total)
  over = over or kept is not None
  evaluation = _json(path / 'eval.json')
  steps = [line['step'] for line in lines] + [total] * over
  current = kept if kept is not None else max(steps, default=None)
  known = evaluation.get('step') == current
  return Run(
    name=name,
    path=path,
    config=_flat(config),
    sources=stages.sources(config),
    lines=lines,
    samples=_json_lines(path / 'samples.jsonl'),
    estimates=evaluation.get('metrics', {}) if known else {},
    state='done' if over else '',
    kept=kept,
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
  """A config without its seeds, and without where its run happens to lie."""

  def alike(value):
    if isinstance(value, list):
      return [alike(v) for v in value]
    if not isinstance(value, str):
      return value
    if value.startswith('synthetic:'):  # Which rows are drawn is chance too.
      return re.sub(r'([?&]seed=)\d+', r'\1*', value)
    # A stage's place depends on the run that made it; its name does not.
    return re.sub(r'.*/stages/', '', value)

  return {key: alike(value) for key, value in config.items() if key != 'seed'}
