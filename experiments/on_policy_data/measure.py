"""Gold score, KL and length of learning from others' and from own responses.

  python -m experiments.on_policy_data.measure runs/experiments

Writes table.md and figure.png.
"""

import pathlib
import sys

from experiments import figures

HERE = pathlib.Path(__file__).parent
METHODS = ('dpo', 'iterative dpo', 'online dpo', 'ppo')
COLUMNS = {
  'gold score': 'probes/total', 'correct': 'probes/correct',
  'KL': 'probes/kl_exact', 'tokens': 'probes/length',
}  # fmt: skip


def main(workdir: str):
  named = figures.groups(workdir, HERE)
  named = {name: named[name] for name in METHODS}
  text = figures.of_metrics(named, COLUMNS) + '\n\n' + judged(
    {name: named[name] for name in METHODS[1:]}
  )
  figures.save_table(HERE, text)
  figures.plot(
    HERE / 'figure.png',
    lambda axes: figures.draw_paths(
      axes, named, 'probes/kl_exact', 'probes/total'
    ),
    x='KL to the SFT model (nats a response)',
    y='gold score', title='From others\' responses, and from one\'s own',
  )  # fmt: skip


def judged(named) -> str:
  """What the reward model gave on the way, of those that it was asked by."""
  rows = []
  for name, runs in named.items():
    for step, _ in runs[0].curve('probes/reward'):
      at = [
        [dict(run.curve(metric))[step] for run in runs]
        for metric in ('probes/kl_exact', 'probes/reward', 'probes/total')
      ]
      rows.append([name, f'{step:.0f}', *map(figures.cell, at)])
  columns = ['run', 'update', 'KL', 'reward model', 'gold score']
  return figures.table(columns, rows)


if __name__ == '__main__':
  main(sys.argv[1])
