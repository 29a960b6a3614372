"""From a sweep file to the runs that there are: resolved, named, in order.

A run is known by a hash of its resolved config, in which the runs that it
starts from are hashes in turn. So two entries that come to the same thing are
one run, a stage that many start from is one run, and neither a new name nor
another place in the file has anything trained again.
"""

import collections
import dataclasses
import difflib
import hashlib
import importlib.util
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from alignax.stages import is_config, sources
from alignax.sweeps import spec


@dataclasses.dataclass(frozen=True)
class Planned:
  """A run of a sweep.

  Attributes:
    id: 'dpo-3fa91c0b2d': its algorithm, and the hash of its config.
    name: what the sweep file calls it.
    also: other names of the same run.
    config: 'FILE.py:ARGS'.
    overrides: as `alignax train` takes them, without those of `after`.
    after: ids of the runs that it starts from, by the key of the config that
      is to hold their directory.
    total_steps: of its config.
  """

  id: str
  name: str
  also: tuple[str, ...]
  config: str
  overrides: tuple[str, ...]
  after: dict[str, str]
  total_steps: int

  def directory(self, workdir) -> pathlib.Path:
    return directory(workdir, self.id)

  def arguments(self, workdir) -> list[str]:
    """Those of `alignax train` that run it, wherever it stands."""
    stages = [
      f'--config.{key}={directory(workdir, stage)}'
      for key, stage in self.after.items()
    ]
    return [
      f'--config={self.config}',
      f'--workdir={self.directory(workdir)}',
      *self.overrides,
      *stages,
    ]


def directory(workdir, id: str) -> pathlib.Path:
  # Absolute: a run that goes on compares its config with that of its start.
  return pathlib.Path(workdir).absolute() / 'runs' / id


def load_sweep(path: str) -> list[spec.Run]:
  """What `get_sweep()` of a file returns.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it has no such function, or returns something else.
  """
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f'There is no sweep file {path}.')
  # As for configs: a sweep file may import what lies beside it.
  sys.path[:0] = [p for p in ('.',) if p not in sys.path]
  found = importlib.util.spec_from_file_location('alignax_sweep', path)
  module = importlib.util.module_from_spec(found)
  found.loader.exec_module(module)
  if not hasattr(module, 'get_sweep'):
    raise ValueError(f'{path} has no get_sweep(), which returns the runs.')
  entries = module.get_sweep()
  if not isinstance(entries, Sequence) or not entries:
    raise ValueError(f'get_sweep() of {path} returns no list of runs.')
  return list(entries)


def make_plan(
  entries: Sequence[spec.Run], load: Callable[[str, list[str]], Any]
) -> list[Planned]:
  """Resolves every run and those that they start from, which come first.

  Args:
    entries: see `alignax.sweeps`.
    load: maps ('FILE.py:ARGS', overrides) to a config.

  Raises:
    ValueError: a run that cannot be resolved; the message says which.
  """
  return _Planner(entries, load).plan()


class _Planner:
  """The runs resolved so far, by id."""

  def __init__(self, entries, load):
    self.entries, self.load = entries, load
    self.by_name: dict[str, list[spec.Run]] = {}
    for i, entry in enumerate(entries):
      _check(entry, f'run {i}')
      self.by_name.setdefault(spec.name_of(entry), []).append(entry)
    self.found: dict[str, Planned] = {}
    self.path: list[spec.Run] = []  # Those being resolved.

  def plan(self) -> list[Planned]:
    for entry in self.entries:
      self.resolve(entry)
    return _apart(list(self.found.values()))

  def resolve(self, entry: spec.Run) -> Planned:
    name = spec.name_of(entry)
    if entry in self.path:
      names = map(spec.name_of, self.path[self.path.index(entry) :])
      raise ValueError(f'Runs wait for each other: {", ".join(names)}.')
    self.path.append(entry)
    try:
      made = self._resolve(entry, name)
    except (ValueError, OSError) as error:
      if isinstance(error, BadRun):  # Of a stage, which is already named.
        raise
      raise BadRun(f'Run {name!r} of the sweep: {error}') from error
    finally:
      self.path.pop()
    known = self.found.setdefault(made.id, made)
    if known is not made:
      also = dict.fromkeys([*known.also, name])
      also.pop(known.name, None)
      known = dataclasses.replace(known, also=tuple(also))
      self.found[made.id] = known
    return known

  def _resolve(self, entry, name) -> Planned:
    stages = {k: self.stage(s) for k, s in spec.stages_of(entry).items()}
    overrides = flags(entry.get('overrides', {}))
    config = json.loads(self.load(entry['config'], overrides).to_json())
    for key, source in sources(config).items():
      # A member of an ensemble is no key of its own: its run resolves it.
      if key not in stages and '.members.' not in key and is_config(source):
        stages[key] = self.resolve({'config': source})
    for key, stage in stages.items():
      _set(config, key, stage.id)
    kind = config['algorithm'].rsplit('.', 1)[-1] or 'run'
    return Planned(
      id=f'{kind}-{digest(config)}',
      name=name,
      also=(),
      config=entry['config'],
      overrides=tuple(overrides),
      after={key: stage.id for key, stage in stages.items()},
      total_steps=config['total_steps'],
    )

  def stage(self, stage) -> Planned:
    """A run that another starts from, by name or as it is."""
    if not isinstance(stage, str):
      _check(stage, 'after')
      return self.resolve(stage)
    if stage not in self.by_name:
      close = difflib.get_close_matches(stage, self.by_name, 1, 0.5)
      hint = f'; did you mean {close[0]!r}?' if close else '.'
      raise ValueError(f'after names {stage!r}, no run of this sweep{hint}')
    found = {(run := self.resolve(e)).id: run for e in self.by_name[stage]}
    if len(found) > 1:
      raise ValueError(f'after names {stage!r}, which {len(found)} runs are.')
    return next(iter(found.values()))


class BadRun(ValueError):
  """A run that cannot be resolved; the message names it."""


def flags(overrides: dict[str, Any]) -> list[str]:
  """Overrides as `alignax train` takes them."""
  return [f'--config.{key}={value}' for key, value in overrides.items()]


def digest(config: dict) -> str:
  text = json.dumps(config, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:10]


def _check(entry, where: str):
  if not isinstance(entry, dict) or 'config' not in entry:
    raise ValueError(
      f'{where} of the sweep is {entry!r}; a run is a dict with at least '
      "config='FILE.py:ARGS'."
    )
  unknown = [key for key in entry if key not in spec.KEYS]
  if unknown:
    raise ValueError(
      f'{where} of the sweep has {unknown[0]!r}; known are '
      f'{", ".join(spec.KEYS)}.'
    )


def _apart(runs: list[Planned]) -> list[Planned]:
  """Runs that have one name get what they override added to it."""
  for longer in (
    lambda run: ' '.join([run.name, *_labels(run.overrides)]),
    lambda run: f'{run.name} {run.id.rsplit("-", 1)[-1]}',
  ):
    names = collections.Counter(run.name for run in runs)
    runs = [
      dataclasses.replace(run, name=longer(run)) if names[run.name] > 1 else run
      for run in runs
    ]
  return runs


def _labels(overrides):
  pairs = (text.removeprefix('--config.').split('=', 1) for text in overrides)
  return [spec.label(key, value) for key, value in pairs]


def _set(config: dict, key: str, value):
  *path, last = key.split('.')
  for part in path:
    config = config.get(part, {})
  if last not in config:
    raise ValueError(f'after sets {key}, which its config does not have.')
  config[last] = value


def save(plan: Sequence[Planned], workdir, sweep: str):
  """Keeps a plan beside its runs, for `report` and for other machines."""
  save_file(plan, path(workdir), sweep)


def path(workdir) -> pathlib.Path:
  """Of the plan that was started last in a directory."""
  return pathlib.Path(workdir) / 'sweep.json'


def save_file(plan: Sequence[Planned], file: pathlib.Path, sweep: str):
  made = {
    'sweep': sweep,
    'started_in': os.getcwd(),
    'runs': [dataclasses.asdict(run) for run in plan],
  }
  file.parent.mkdir(parents=True, exist_ok=True)
  new = file.with_name(f'{file.name}.new')
  new.write_text(json.dumps(made, indent=2) + '\n')
  new.replace(file)


def load(workdir) -> list[Planned]:
  """The plan kept in a directory.

  Raises:
    FileNotFoundError: there is none.
  """
  if not path(workdir).exists():
    raise FileNotFoundError(f'{workdir} holds no sweep: it has no sweep.json.')
  return load_file(path(workdir))


def load_file(file: pathlib.Path) -> list[Planned]:
  return [
    Planned(**run | {k: tuple(run[k]) for k in ('also', 'overrides')})
    for run in json.loads(file.read_text())['runs']
  ]
