"""Runs that differ by their seed only, as one: means, intervals, curves."""

import json
import math
import re
from collections.abc import Sequence

from alignax.evals.intervals import Estimate, bootstrap
from alignax.report.runs import Run, common_name, comparable

FEW = 6  # Seeds, with fewer of which an interval is said to be too narrow.


class Group:
  """Runs that differ by their seed only."""

  def __init__(self, runs: Sequence[Run]):
    self.runs = runs
    self.name = _common_name([run.name for run in runs])
    self._last = [run.last() for run in runs]

  def last(self, metric: str) -> Estimate | float | str | None:
    """The last value; over seeds, the mean and its interval, if it has one."""
    values = [v[metric] for v in self._last if v.get(metric) is not None]
    if len(values) != 1:
      return over_seeds(values)
    known = self.runs[0].estimates.get(metric) if len(self.runs) == 1 else None
    if known is None or known['mean'] is None:
      return 'NaN' if math.isnan(values[0]) else values[0]
    low, high = (float('nan') if known[k] is None else known[k]
                 for k in ('low', 'high'))  # fmt: skip
    return Estimate(known['mean'], low, high, known['n'])

  def by_seed(self, metric: str) -> dict[int, float]:
    """The last value of every seed that has one."""
    return {
      run.config.get('seed', i): values[metric]
      for i, (run, values) in enumerate(zip(self.runs, self._last))
      if values.get(metric) is not None
    }

  def curve(self, metric: str) -> list[tuple[float, ...]]:
    """Of one run, or the mean and the range over seeds at every step."""
    if len(self.runs) == 1:
      return self.runs[0].curve(metric)
    at = {}
    for run in self.runs:
      for step, value in dict(run.curve(metric)).items():
        at.setdefault(step, []).append(value)
    return [
      (step, sum(v) / len(v), min(v), max(v))
      for step, v in sorted(at.items())
      if len(v) == len(self.runs)
    ]


def over_seeds(values: Sequence[float]) -> Estimate | str | None:
  """The mean and its interval, or why there is none; None of nothing."""
  if not values:
    return None
  odd = [v for v in values if not math.isfinite(v)]
  if not odd:
    return bootstrap(values)
  what = 'NaN' if any(map(math.isnan, odd)) else 'inf'
  return f'{what} in {len(odd)} of {len(values)} seeds'


def differences(ours: Sequence[float], theirs: Sequence[float]):
  """As `over_seeds`, of what one is above the other, seed by seed."""
  return over_seeds([x - y for x, y in zip(ours, theirs, strict=True)])


def group(runs: Sequence[Run]) -> list[Group]:
  """Runs that differ by their seed only, together."""
  found = {}
  for run in runs:
    same = json.dumps(comparable(run.config), sort_keys=True)
    found.setdefault(same, []).append(run)
  # The same seed twice is the same run twice, not a sample of two.
  groups = []
  for members in found.values():
    seeds = [run.config.get('seed') for run in members]
    whole = len(set(seeds)) == len(seeds)
    groups += [Group(members)] if whole else [Group([run]) for run in members]
  return groups


def warning(groups: Sequence[Group]) -> str:
  """What to know of the intervals of groups, if any is of few seeds."""
  if not any(1 < len(g.runs) < FEW for g in groups):
    return ''
  return (
    f'Intervals over fewer than {FEW} seeds are too narrow: of 3 they go from '
    'the lowest seed to the highest, which holds the mean 75 times in 100, and '
    'not 95; of 5, 84 times.'
  )


def _common_name(names: list[str]) -> str:
  if len(names) == 1:
    return names[0]
  return f'{common_name(names)} ({len(names)} seeds)'


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
