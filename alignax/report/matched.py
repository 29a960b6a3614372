"""Methods at equal KL: whose reward is higher at the same distance travelled.

A method is all runs that agree on some keys of their configs. A run goes away
from its reference as it trains, and is evaluated on its way: what it had where
it first came past a KL is interpolated between the two evaluations around it.
A seed's reward at a KL is the mean over its runs that were evaluated near it;
where none was, it is missing.

Rewards are concave in KL, and nearly straight in d = √KL: d (α - β d) above
the start (Gao et al. 2023, section 3.1, https://arxiv.org/abs/2210.10760).
Joined by chords in KL, a run that is evaluated rarely seems below others on the
same curve; by chords in d, it does so by β (d - d₀)(d₁ - d) only. Where that
may be much, as between the start and a first evaluation far away, the reward
is missing too.
"""

import difflib
import math
from collections.abc import Mapping, Sequence

from alignax.evals.intervals import bootstrap
from alignax.report import charts, page
from alignax.report.groups import differences, over_seeds

LEVELS = 5  # Values of KL at which methods are compared.
# How far an interpolation may be wrong, as a share of what a curve gains that
# is highest at the last level: β D², if that is D².
SLACK = 0.02

Points = list[tuple[float, float]]


def sections(
  groups, frontiers, by: Sequence[str], *, baseline: str | None = None
) -> list[page.Section]:
  """A chart of frontiers, and a table of rewards at equal KL.

  Args:
    groups: runs over their seeds; see `groups.Group`.
    frontiers: (reward, KL) names of metrics; the first that was measured for
      most of the groups is used.
    by: keys of the config that make a method.
    baseline: a method that the others are compared with, seed by seed.
  """
  several = len(methods(groups, by)) > 1
  count = lambda f: sum(bool(last_points(g, *f)) for g in groups)
  reward, kl = max(frontiers, key=count)
  if not count((reward, kl)) or not several:
    return []
  found = paths_of(groups, reward, kl, by)
  made = [_chart(groups, reward, kl, by), _table(found, reward)]
  if baseline in found:
    made.append(_against(found, reward, baseline))
  return made


def check_keys(runs, by: Sequence[str]):
  """Raises for a key that no run's config has."""
  known = sorted({key for run in runs for key in run.config})
  for key in by:
    if key in known:
      continue
    # A key is often right but in the wrong place: loss, say.
    last = key.rsplit('.', 1)[-1]
    close = [k for k in known if k.rsplit('.', 1)[-1] == last]
    close += difflib.get_close_matches(key, known, 3, 0.5)
    names = ' or '.join(map(repr, dict.fromkeys(close)))
    hint = f'; did you mean {names}?' if close else '.'
    raise ValueError(f'by: no run has a key {key!r} in its config{hint}')


def methods(groups, by: Sequence[str]) -> set[str]:
  return {method_of(g, by) for g in groups}


def method_of(group, by: Sequence[str]) -> str:
  """What a group's runs have for the keys: 'dpo ipo'."""
  config = group.runs[0].config
  values = [str(config[key]) for key in by if key in config]
  named = ' '.join(v.removeprefix('alignax.algorithms.') for v in values)
  return named or group.name


def last_points(group, reward: str, kl: str) -> dict[int, tuple[float, float]]:
  """Where each seed of a group came out: (KL, reward)."""
  rewards, kls = group.by_seed(reward), group.by_seed(kl)
  return {s: (kls[s], rewards[s]) for s in rewards if s in kls}


def paths_of(groups, reward, kl, by) -> dict[str, dict[int, list[Points]]]:
  """The (KL, reward) of every run as it trained, by method and seed."""
  found: dict[str, dict[int, list[Points]]] = {}
  for g in groups:
    for i, run in enumerate(g.runs):
      rewards, kls = (dict(run.curve(name)) for name in (reward, kl))
      points = [(kls[s], rewards[s]) for s in sorted(rewards) if s in kls]
      if points:
        seeds = found.setdefault(method_of(g, by), {})
        seeds.setdefault(run.config.get('seed', i), []).append(points)
  return found


def at_kl(points: Points, kl: float, *, slack: float) -> float | None:
  """The reward where a path first comes past a KL, or None.

  None if it never does, or if the evaluations before and after are so far apart
  that (d - d₀)(d₁ - d) is more than `slack`, with d = √KL.
  """
  d = _root(kl)
  for (x0, y0), (x1, y1) in zip(points, points[1:]):
    if min(x0, x1) <= kl <= max(x0, x1):
      d0, d1 = _root(x0), _root(x1)
      if (d - d0) * (d1 - d) > slack:
        return None
      share = (d - d0) / (d1 - d0) if d1 != d0 else 0.0
      return y0 + share * (y1 - y0)
  return None


def _root(kl: float) -> float:
  return math.sqrt(max(kl, 0.0))  # An estimate may be below zero.


def of_seed(
  paths: Sequence[Points], kl: float, *, slack: float
) -> float | None:
  """The mean reward at a KL of a seed's runs that were evaluated near it."""
  known = [at_kl(path, kl, slack=slack) for path in paths]
  known = [v for v in known if v is not None]
  return sum(known) / len(known) if known else None


def levels(paths: Mapping[str, Mapping[int, list[Points]]]) -> list[float]:
  """Round values of KL, up to the largest that half of the methods reach."""
  reach = sorted(
    max(
      (p[0] for runs in seeds.values() for path in runs for p in path
       if math.isfinite(p[0])), default=0.0,
    )
    for seeds in paths.values()
  )
  top = reach[len(reach) // 2]
  found = charts.ticks(0.0, top, LEVELS) if top > 0 else []
  return [kl for kl in found if 0 < kl <= top]


def _chart(groups, reward, kl, by):
  """A dot a group: the mean over its seeds, joined in the order of KL."""
  curves: dict[str, list] = {}
  for g in groups:
    points = list(last_points(g, reward, kl).values())
    if points:
      x, y = (sum(values) / len(points) for values in zip(*points))
      spread = bootstrap([p[1] for p in points])
      point = (x, y, spread.low, spread.high) if len(points) > 1 else (x, y)
      curves.setdefault(method_of(g, by), []).append(point)
  curves = {name: sorted(points) for name, points in curves.items()}
  return charts.frontier(
    'Frontiers',
    {f'{reward} against {kl}': curves},
    note='Where runs ended, means over seeds with their intervals; a line '
    'joins the runs of one method in the order of KL.',
  )


def _table(paths, reward):
  values = levels(paths)
  slack = SLACK * max(values, default=0.0)
  rows = []
  for method, seeds in paths.items():
    row = {'method': method}
    for level in values:
      known = [of_seed(runs, level, slack=slack) for runs in seeds.values()]
      known = [v for v in known if v is not None]
      row[_column(level)] = over_seeds(known, len(seeds))
    rows.append(row)
  return page.table(
    f'{reward} at equal KL',
    rows,
    columns=['method', *map(_column, values)],
    note='Where a run first came past that KL, interpolated between '
    'evaluations in the root of KL; the mean over seeds and its interval. '
    'Missing where no run of the method went so far, or the evaluations '
    'around are too far apart to tell.',
  )


def _against(paths, reward, baseline: str):
  values, base = levels(paths), paths[baseline]
  slack = SLACK * max(values, default=0.0)
  rows = []
  for method, seeds in paths.items():
    row = {'method': method}
    for level in values:
      pairs = [
        tuple(of_seed(runs, level, slack=slack) for runs in both)
        for both in ((seeds[s], base[s]) for s in seeds if s in base)
      ]
      known = [pair for pair in pairs if None not in pair]
      row[_column(level)] = differences(known, len(seeds))
    if method != baseline:
      rows.append(row)
  return page.table(
    f'{reward} at equal KL, against {baseline}',
    rows,
    columns=['method', *map(_column, values)],
    note='Differences, seed by seed.',
  )


def _column(level: float) -> str:
  return f'at KL {level:g}'
