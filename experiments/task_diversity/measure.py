"""Success on families that were never demonstrated, by how many were.

  python -m experiments.task_diversity.measure runs/experiments

Writes table.md and figure.png.
"""

import pathlib
import sys

from experiments import figures
from experiments.task_diversity.sweep import COUNTS, WORDINGS

HERE = pathlib.Path(__file__).parent
COLUMNS = {'gold score': 'samples/total', 'correct': 'samples/correct',
           'loss': 'heldout/loss'}  # fmt: skip


def main(workdir: str):
  named = figures.groups(workdir, HERE)
  names = {(c, w): f'{c} families, {w}' for w in WORDINGS for c in COUNTS}
  text = figures.of_metrics({n: named[n] for n in names.values()}, COLUMNS)
  figures.save_table(HERE, text)

  def fill(axes):
    for wording in WORDINGS:
      runs = [named[names[count, wording]] for count in COUNTS]
      figures.draw_levels(axes, COUNTS, runs, 'samples/correct', wording)

  figures.plot(
    HERE / 'figure.png', fill, x='families demonstrated',
    y='right answers, unseen families',
    title='1,000 demonstrations of more or fewer kinds; a dot a seed',
  )  # fmt: skip


if __name__ == '__main__':
  main(sys.argv[1])
