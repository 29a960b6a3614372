"""Functions that write runs of a sweep: plain dicts in, plain dicts out."""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Run = dict[str, Any]
KEYS = ('config', 'overrides', 'name', 'after')


def run(
  config: str,
  overrides: Mapping[str, Any] | None = None,
  *,
  name: str = '',
  after: Any = None,
) -> Run:
  """One run; see `alignax.sweeps` for what its parts mean."""
  made = dict(config=config, overrides=dict(overrides or {}))
  made['name'] = name or default_name(made)
  if after is not None:
    made['after'] = after
  return made


def grid(
  runs: Run | Sequence[Run], values: Mapping[str, Iterable[Any]]
) -> list[Run]:
  """Every run with every combination of values.

  Args:
    runs: one, or several.
    values: by key: {'algorithm_kw.beta': [0.1, 0.3], 'seed': range(3)}.
  """
  columns = [list(column) for column in values.values()]
  return _vary(runs, list(values), itertools.product(*columns))


def zipped(
  runs: Run | Sequence[Run], values: Mapping[str, Iterable[Any]]
) -> list[Run]:
  """Every run with the first value of every key, with the second, and so on.

  Raises:
    ValueError: keys with different numbers of values.
  """
  columns = [list(column) for column in values.values()]
  if len({len(column) for column in columns}) > 1:
    counts = ', '.join(f'{k} has {len(c)}' for k, c in zip(values, columns))
    raise ValueError(f'Values that go together must be as many: {counts}.')
  return _vary(runs, list(values), zip(*columns))


def seeds(
  runs: Run | Sequence[Run],
  which: int | Iterable[int],
  *,
  stages: bool = False,
) -> list[Run]:
  """Every run with every seed.

  Args:
    runs: one, or several.
    which: 5 for the seeds 0 to 4, or the seeds.
    stages: whether the runs that they start from (given as dicts) get the same
      seeds. If not, they are shared, and what varies is the last stage alone.
  """
  which = range(which) if isinstance(which, int) else list(which)
  return [
    made
    for one in _listed(runs)
    for seed in which
    for made in [_seeded(one, seed, stages)]
  ]


def default_name(entry: Run) -> str:
  """'dpo beta=0.1': the file of the config, and what is changed."""
  path, _, argument = entry['config'].partition(':')
  parts = [pathlib.Path(path).stem, argument.replace(',', ' ')]
  parts += [label(*item) for item in entry.get('overrides', {}).items()]
  return ' '.join(filter(None, parts))


def name_of(entry: Run) -> str:
  return entry.get('name') or default_name(entry)


def stages_of(entry: Run) -> dict[str, Any]:
  """`after` as runs, or names of runs, by the key that points to them."""
  after = entry.get('after')
  if after is None:
    return {}
  if isinstance(after, str) or 'config' in after:
    return {'init_from': after}
  return dict(after)


def _vary(runs, keys, rows) -> list[Run]:
  rows = list(rows)
  return [
    _changed(one, dict(zip(keys, r))) for one in _listed(runs) for r in rows
  ]


def _changed(entry: Run, values: Mapping[str, Any]) -> Run:
  name = name_of(entry)
  labels = [label(*item) for item in values.items()]
  overrides = {**entry.get('overrides', {}), **values}
  return {**entry, 'overrides': overrides, 'name': ' '.join([name, *labels])}


def _seeded(entry: Run, seed: int, stages: bool) -> Run:
  made = _changed(entry, {'seed': seed})
  if not stages:
    return made
  after = {}
  for key, stage in stages_of(entry).items():
    if isinstance(stage, str):
      raise ValueError(
        f'{made["name"]} comes after {stage!r}, a name, which cannot be given '
        'a seed: give the run itself.'
      )
    after[key] = _seeded(stage, seed, stages)
  return made | {'after': after} if after else made


def label(key: str, value: Any) -> str:
  """A change in short: 'beta=0.1'."""
  return f'{key.rsplit(".", 1)[-1]}={value}'


def _listed(runs) -> list[Run]:
  return [runs] if isinstance(runs, Mapping) else list(runs)
