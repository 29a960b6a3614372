"""Tables and figures of measured runs, for the pages of the experiments."""

import pathlib
import re

import numpy as np

from alignax import report
from alignax.cli import configs
from alignax.evals.intervals import bootstrap, paired
from alignax.sweeps import plan, state

WIDTH, HEIGHT, DPI = 7.2, 4.0, 120  # Inches; a figure is under 200 kB.
ORDER = [f'C{i}' for i in range(10)]


def groups(workdir, folder, sweep: str = 'sweep.py') -> dict[str, list]:
  """The finished runs of an experiment by name, all seeds together.

  Args:
    workdir: where they are; other experiments may have theirs there too.
    folder: of the experiment.
    sweep: the file in it that says which.
  """
  found: dict[str, list] = {}
  entries = plan.load_sweep(str(pathlib.Path(folder) / sweep))
  planned = plan.make_plan(entries, configs.load)
  runs = report.of_plan(planned, workdir)
  print(f'{len(runs)} runs, {minutes(planned, workdir):.1f} minutes in all.')
  finished = [run for run in runs if run.finished]
  if missing := len(runs) - len(finished):
    print(f'{missing} of {len(runs)} runs are not finished, and left out.')
  for run in finished:
    for name in (run.name, *run.also):  # One config may have several.
      found.setdefault(re.sub(r' seed=\d+$', '', name), []).append(run)
  return found


def minutes(planned, workdir) -> float:
  """By the clocks of the runs themselves, one after another."""
  ran = [state.read(r.directory(workdir), r.total_steps) for r in planned]
  return sum(status.seconds for status in ran) / 60


def last(runs, metric: str) -> np.ndarray:
  """The last value in every run that measured it."""
  found = [run.last().get(metric) for run in runs]
  return np.array([x for x in found if x is not None], float)


def cell(values) -> str:
  """'0.61 [0.58, 0.64]': a mean over seeds with its interval."""
  if not len(values):
    return '–'
  e = bootstrap(values)
  spread = f' [{e.low:.3g}, {e.high:.3g}]' if len(values) > 1 else ''
  return f'{e.mean:.3g}{spread}'


def above(runs, baseline, metric: str) -> str:
  """'+0.01 [-0.02, +0.03]': what runs end above others, seed by seed.

  Raises:
    ValueError: seeds of the one that the other has not.
  """
  ends = [{run.config['seed']: run.last()[metric] for run in group}
          for group in (runs, baseline)]  # fmt: skip
  own, others = ends
  if set(own) != set(others):
    raise ValueError(
      f'Differences seed by seed need the same seeds: {sorted(own)} against '
      f'{sorted(others)}. Finish the sweep.'
    )
  return signed([own[seed] for seed in own], [others[seed] for seed in own])


def signed(values, baseline) -> str:
  e = paired(values, baseline)
  return f'{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]'


def table(columns, rows) -> str:
  """Markdown."""
  lines = [columns, ['---'] * len(columns), *rows]
  return '\n'.join('| ' + ' | '.join(map(str, x)) + ' |' for x in lines)


def of_metrics(named, metrics: dict[str, str]) -> str:
  """A row for every group of runs, a column for every metric {title: name}."""
  rows = [
    [name, *(cell(last(runs, metric)) for metric in metrics.values())]
    for name, runs in named.items()
    if any(len(last(runs, metric)) for metric in metrics.values())
  ]
  return table(['run', *metrics], rows)


def of_pairs(named, baseline: str, metrics: dict[str, str]) -> str:
  """What every other group ends above one of them, seed by seed."""
  rows = [
    [name, *(above(runs, named[baseline], m) for m in metrics.values())]
    for name, runs in named.items()
    if name != baseline
  ]
  return table([f'above {baseline}', *metrics], rows)


def plot(path, draw, *, x: str, y: str, title: str, size=(WIDTH, HEIGHT)):
  """Writes a figure; `draw(axes)` fills it."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(figsize=size, layout='constrained')
  draw(axes)
  axes.set(xlabel=x, ylabel=y, title=title)
  axes.spines[['top', 'right']].set_visible(False)
  if axes.get_legend_handles_labels()[0]:
    axes.legend(frameon=False, fontsize=8, loc='best')
  path = pathlib.Path(path)
  figure.savefig(path, dpi=DPI)
  pyplot.close(figure)
  print(path)


def save_table(folder, text: str):
  """Writes a table beside its experiment, and prints it."""
  (pathlib.Path(folder) / 'table.md').write_text(text + '\n')
  print(text)


def draw_paths(axes, named, x: str, y: str):
  """A line a method, along its training."""
  for name, runs in named.items():
    axes.plot(*curve(runs, x, y), marker='o', label=name)


def draw_levels(axes, levels, groups, metric: str, label: str):
  """The mean over seeds at each level, joined, and a dot a seed."""
  points = [last(runs, metric) for runs in groups]
  axes.plot(levels, [p.mean() for p in points], marker='o', label=label)
  for level, p in zip(levels, points):
    axes.plot([level] * len(p), p, '.', color='grey', ms=4)


def curve(runs, x: str, y: str):
  """Mean (x, y) over runs at the steps where all measured both."""
  paths = []
  for run in runs:
    xs, ys = dict(run.curve(x)), dict(run.curve(y))
    paths.append({s: (xs[s], ys[s]) for s in xs if s in ys})
  paths = [path for path in paths if path]  # A run may have died.
  steps = sorted(set.intersection(*map(set, paths)))
  return np.mean([[path[s] for s in steps] for path in paths], axis=0).T
