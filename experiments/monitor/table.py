"""When the monitor warns in the runs of a sweep, and what that comes before.

  python -m experiments.monitor.table runs/experiments

Writes table.md and figure.png.

A warning depends on nothing but the evaluations up to then, so it is found here
from those that the runs wrote. Where the held-out score truly turned is not
known either; of a run that as a whole turns (`monitor.turn`) it is taken for
where it was highest. 'Then' is the score at the warning, 'end' what the run
came to, and 'kept' what it would have been worth if it had ended at its best up
to the warning, as with monitor.stop.
"""

import functools
import pathlib
import sys

import numpy as np

from alignax.evals import monitor
from experiments import figures

PROXY, JUDGE = 'probes/reward', 'probes/total'


def main(workdir: str):
  folder = pathlib.Path(__file__).parent
  named = figures.groups(workdir, folder)
  named = {k: v for k, v in named.items() if v[0].curve('monitor/best_step')}
  figures.save_table(folder, table(named))
  figures.plot(
    folder / 'figure.png', functools.partial(draw, named), x='step',
    y='gold score', title='Gold score of every seed; a dot where it is warned',
  )  # fmt: skip


def draw(named, axes):
  for color, (name, runs) in zip(figures.ORDER, named.items()):
    for i, run in enumerate(runs):
      steps, judge = zip(*run.curve(JUDGE))
      label = name if i == 0 else None
      axes.plot(steps, judge, color=color, lw=0.8, alpha=0.6, label=label)
      _, _, warned, then, *_ = measure(run)
      if warned is not None:
        axes.plot([warned], [then], 'o', color=color, ms=5)


def table(named) -> str:
  """Markdown, of runs by name: a row a run, and a line for each name."""
  columns = 'run', 'seed', 'turned at', 'warned at', 'then', 'end', 'kept'
  rows = [f'| {" | ".join(columns)} |', '|---' * len(columns) + '|']
  counts = []
  for name, runs in named.items():
    found = [measure(run) for run in runs]
    for seed, turn, warned, *scores in found:
      cells = (name, seed, shown(turn), shown(warned), *map(score, scores))
      rows.append('| ' + ' | '.join(str(cell) for cell in cells) + ' |')
    counts.append(summary(name, found))
  return '\n'.join([*rows, '', *counts])


def measure(run):
  """Seed, turn, warning; scores then, at the end, and the best up to then."""
  steps, judge = map(np.array, zip(*run.curve(JUDGE)))
  proxy = [value for _, value in run.curve(PROXY)]
  first = monitor.first_warning(proxy, judge)
  warned = None if first is None else steps[first]
  seen = judge if warned is None else judge[steps <= warned]
  turned = monitor.turn(steps, judge) is not None
  return (
    run.config['seed'],
    steps[np.argmax(judge)] if turned else None,
    warned,
    None if warned is None else seen[-1],
    judge[-1],
    judge[-1] if warned is None else seen.max(),
  )


def summary(name: str, found) -> str:
  turned = [row for row in found if row[1] is not None]
  true = [row for row in turned if row[2] is not None and row[2] >= row[1]]
  false = [row for row in found if row[2] is not None and row not in true]
  late = sorted(row[2] - row[1] for row in true)
  after = f', {np.median(late):.0f} steps after it (median)' if late else ''
  return (
    f'{name}: {len(turned)} of {len(found)} turned; warned of {len(true)} of '
    f'these{after}; {len(false)} false alarms.'
  )


def shown(step) -> str:
  return '–' if step is None else f'{step:.0f}'


def score(value) -> str:
  return '–' if value is None else f'{value:.3f}'


if __name__ == '__main__':
  main(sys.argv[1])
