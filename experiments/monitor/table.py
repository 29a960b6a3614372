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
from alignax.evals.intervals import wilson
from experiments import figures

PROXY, JUDGE = 'probes/reward', 'probes/total'
SUMMARY = (
  'runs', 'turned', 'warned of these', 'after the turn (median)',
  'gold then', 'kept', 'end of these', 'end of all', 'false alarms',
)  # fmt: skip
RUNS = ('run', 'seed', 'turned at', 'warned at', 'then', 'end', 'kept',
        'proxy, turn to end')  # fmt: skip


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
  """Markdown, of runs by name: a row a name and one of all; a row a run."""
  found = {name: list(map(measure, runs)) for name, runs in named.items()}
  every = [row for rows in found.values() for row in rows]
  summaries = [summary(*item) for item in (*found.items(), ('all', every))]
  rows = [
    (name, seed, shown(turn), shown(warned), *map(score, scores))
    for name, measured in found.items()
    for seed, turn, warned, *scores in measured
  ]
  return '\n\n'.join([
    figures.table(SUMMARY, summaries), figures.table(RUNS, rows)
  ])  # fmt: skip


def measure(run):
  """Seed, turn, warning; scores then, at the end, and the best up to then.

  And what the proxy rose by from the turn to the end.
  """
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
    proxy[-1] - proxy[np.argmax(judge)] if turned else None,
  )


def summary(name: str, found) -> list[str]:
  """How many turned and were warned of; means over those that were.

  A warning before the turn is false, as one without a turn is: its run counts
  with those that do not turn.
  """
  turned = [row for row in found if row[1] is not None]
  early = [row for row in turned if row[2] is not None and row[2] < row[1]]
  true = [row for row in turned if row[2] is not None and row not in early]
  false = [row for row in found if row[2] is not None and row not in true]
  late = [row[2] - row[1] for row in true]
  return [
    name,
    f'{len(turned)} of {len(found)}',
    rate(len(true), len(turned)),
    f'{np.median(late):.0f} updates' if late else '–',
    *(f'{np.mean([row[i] for row in true]):.2f}' if true else '–'
      for i in (3, 5, 4)),
    f'{np.mean([row[4] for row in found]):.2f}',
    rate(len(false), len(found) - len(turned) + len(early)),
  ]  # fmt: skip


def rate(hits: int, n: int) -> str:
  """'9 of 10 [0.60, 0.98]', Wilson's interval."""
  e = wilson(hits, n)
  return f'{hits} of {n}' + (f' [{e.low:.2f}, {e.high:.2f}]' if n else '')


def shown(step) -> str:
  return '–' if step is None else f'{step:.0f}'


def score(value) -> str:
  return '–' if value is None else f'{value:.3f}'


if __name__ == '__main__':
  main(sys.argv[1])
