"""Prints the monitor's warnings of a sweep, and what they came before.

  python -m experiments.monitor.table runs/experiments

Where the held-out score truly turned is not known either; it is estimated from
the whole run, which the monitor did not have. 'Kept' is what the run would have
been worth if it had ended at its best up to the warning, 'end' what it came to.
"""

import pathlib
import sys

import numpy as np

from alignax.evals import monitor
from experiments import figures

PROXY, JUDGE = 'probes/reward', 'probes/total'


def main(workdir: str):
  folder = pathlib.Path(__file__).parent
  figures.save_table(folder, table(figures.groups(workdir, folder)))


def table(named) -> str:
  """Markdown, of runs by name: a row a run, and a line for each name."""
  rows = ['| run | seed | turned at | warned at | end | kept |',
          '|---|---|---|---|---|---|']  # fmt: skip
  counts = []
  for name, runs in named.items():
    found = [measure(run) for run in runs if run.curve('monitor/warning')]
    for seed, turn, warned, end, kept in found:
      cells = (name, seed, shown(turn), shown(warned), end, kept)
      rows.append('| ' + ' | '.join(str(cell) for cell in cells) + ' |')
    if found:
      counts.append(summary(name, found))
  return '\n'.join([*rows, '', *counts])


def measure(run):
  """Seed, turn, warning, score at the end, and best score up to the warning."""
  steps, judge = map(np.array, zip(*run.curve(JUDGE)))
  warned = next((s for s, w in run.curve('monitor/warning') if w), None)
  seen = judge if warned is None else judge[steps <= warned]
  turn = monitor.turn(steps, judge)
  return (
    run.config['seed'],
    None if turn is None else turn.step,
    warned,
    round(float(judge[-1]), 3),
    round(float(seen.max() if warned is not None else judge[-1]), 3),
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


def shown(value) -> str:
  return '–' if value is None else f'{value:.0f}'


if __name__ == '__main__':
  main(sys.argv[1])
