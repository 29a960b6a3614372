"""Runs that differ by their seed only, as one: means, intervals, curves."""

import json
import re
from collections.abc import Sequence

from alignax.evals.intervals import Estimate, bootstrap
from alignax.report.runs import Run, comparable, unseeded


class Group:
  """Runs that differ by their seed only."""

  def __init__(self, runs: Sequence[Run]):
    self.runs = runs
    self.name = _common_name([run.name for run in runs])
    self._last = [run.last() for run in runs]

  def last(self, metric: str) -> Estimate | float | None:
    """The last value; over seeds, the mean and its interval."""
    values = [v[metric] for v in self._last if v.get(metric) is not None]
    if len(values) > 1:
      return bootstrap(values)
    if not values:
      return None
    known = self.runs[0].estimates.get(metric) if len(self.runs) == 1 else None
    if known is None:
      return values[0]
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


def _common_name(names: list[str]) -> str:
  if len(names) == 1:
    return names[0]
  short = set(map(unseeded, names))
  name = short.pop() if len(short) == 1 else names[0]
  return f'{name} ({len(names)} seeds)'


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
