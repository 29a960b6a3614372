"""Runs that differ by their seed only, as one: means, intervals, curves."""

import json
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from alignax.evals.intervals import Estimate, bootstrap
from alignax.report.runs import Run, common_name, comparable

FEW = 6  # Seeds, with fewer of which an interval is said to be too narrow.


class Part(NamedTuple):
  """An `Estimate` over n of the seeds that there are."""

  mean: float
  low: float
  high: float
  n: int
  seeds: int


class Group:
  """Runs that differ by their seed only.

  Attributes:
    runs: all of them.
    name: what they are called; no other group is.
    counted: those that are done; where none is, all. What a run measured
      where it died, or has come to, is not what it would have ended with.
  """

  def __init__(self, runs: Sequence[Run], name: str):
    self.runs, self.name = runs, name
    self.counted = [run for run in runs if run.finished] or runs
    self._last = [run.last() for run in self.counted]

  @property
  def finished(self) -> bool:
    """Whether any run is."""
    return any(run.finished for run in self.runs)

  def last(self, metric: str) -> Estimate | Part | float | str | None:
    """The last value; over seeds, the mean and its interval, if it has one."""
    values = [v[metric] for v in self._last if v.get(metric) is not None]
    if len(self.runs) > 1 or not values:
      return over_seeds(values, len(self.runs))
    known = self.runs[0].estimates.get(metric)
    if known is None or known['mean'] is None:
      return 'NaN' if math.isnan(values[0]) else values[0]
    low, high = (float('nan') if known[k] is None else known[k]
                 for k in ('low', 'high'))  # fmt: skip
    return Estimate(known['mean'], low, high, known['n'])

  def by_seed(self, metric: str) -> dict[int, float]:
    """The last value of every seed that has one."""
    return {
      run.config.get('seed', i): values[metric]
      for i, (run, values) in enumerate(zip(self.counted, self._last))
      if values.get(metric) is not None
    }

  def curve(self, metric: str) -> list[tuple[float, ...]]:
    """Of one run, or the mean and the range over those that have it."""
    return mean_curve(self.having(metric), metric)

  def having(self, *metrics: str) -> list[Run]:
    """The runs that have curves of all these; one may have died before."""
    return [run for run in self.counted if all(map(run.curve, metrics))]


def mean_curve(runs: Sequence[Run], metric: str) -> list[tuple[float, ...]]:
  """(step, mean, lowest, highest) wherever all runs have it; of one, it."""
  if len(runs) == 1:
    return runs[0].curve(metric)
  at = {}
  for run in runs:
    for step, value in dict(run.curve(metric)).items():
      at.setdefault(step, []).append(value)
  return [
    (step, sum(v) / len(v), min(v), max(v))
    for step, v in sorted(at.items())
    if len(v) == len(runs)
  ]


def over_seeds(
  values: Sequence[float], seeds: int
) -> Estimate | Part | str | None:
  """The mean and its interval, or why there is none; None of nothing.

  Args:
    values: of the seeds that have one.
    seeds: how many there are; with fewer values, the mean says so.
  """
  if not values:
    return None
  odd = [v for v in values if not math.isfinite(v)]
  if not odd:
    found = bootstrap(values)
    return found if len(values) == seeds else Part(*found, seeds)
  what = 'NaN' if any(map(math.isnan, odd)) else 'inf'
  return f'{what} in {len(odd)} of {seeds} seeds'


def differences(pairs: Sequence[tuple[float, float]], seeds: int):
  """As `over_seeds`, of what one is above the other, seed by seed."""
  return over_seeds([ours - theirs for ours, theirs in pairs], seeds)


def group(runs: Sequence[Run]) -> list[Group]:
  """Runs that differ by their seed only, together; no name is of two groups."""
  found = {}
  for run in runs:
    same = json.dumps(comparable(run.config), sort_keys=True)
    found.setdefault(same, []).append(run)
  # The same seed twice is the same run twice, not a sample of two.
  groups = []
  for members in found.values():
    seeds = [run.config.get('seed') for run in members]
    whole = len(set(seeds)) == len(seeds)
    groups += [members] if whole else [[run] for run in members]
  return [Group(*pair) for pair in zip(groups, _names(groups))]


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
  """What groups are called: where several would have one name, by more."""
  names = [_common_name(runs) for runs in groups]
  for longer in (
    _by_config,
    lambda runs, _: runs[0].name,
    lambda runs, _: str(runs[0].path),
  ):
    alike = {name: [] for name in names}
    for name, runs in zip(names, groups):
      alike[name].append(runs)
    names = [
      longer(runs, alike[name]) if len(alike[name]) > 1 else name
      for name, runs in zip(names, groups)
    ]
  counts = [f' ({len(g)} seeds)' if len(g) > 1 else '' for g in groups]
  return [name + count for name, count in zip(names, counts)]


def _common_name(runs: Sequence[Run]) -> str:
  return common_name([run.name for run in runs])


def _by_config(runs: Sequence[Run], alike: Sequence[Sequence[Run]]) -> str:
  """'dpo, algorithm_kw.beta 0.1': with what tells it from those alike."""
  keys = _telling([comparable(others[0].config) for others in alike])
  config = comparable(runs[0].config)
  values = [f'{k} {config[k]}' if k in config else f'no {k}' for k in keys]
  return ', '.join([_common_name(runs), *values])


def _telling(configs: Sequence[dict]) -> list[str]:
  """A few keys on which every two configs differ that differ at all."""
  count = lambda keys: len({str([c.get(k) for k in keys]) for c in configs})
  found: list[str] = []
  for key in sorted({key for config in configs for key in config}):
    if count([*found, key]) > count(found):
      found.append(key)
  return found


def warning(groups: Sequence[Group]) -> str:
  """What to know of the intervals of groups, if any is of few seeds."""
  if not any(1 < len(g.counted) < FEW for g in groups):
    return ''
  return (
    f'Intervals over fewer than {FEW} seeds are too narrow: of 3 they go from '
    'the lowest seed to the highest, which holds the mean 75 times in 100, and '
    'not 95; of 5, 84 times.'
  )


def find_baseline(groups, baseline: str) -> Group:
  for g in groups:
    if baseline == g.name or baseline in [run.name for run in g.runs]:
      return g
    if baseline == re.sub(r' \(\d+ seeds\)$', '', g.name):
      return g
  raise ValueError(
    f'There is no run {baseline!r} to compare with; there are '
    f'{", ".join(g.name for g in groups)}.'
  )
