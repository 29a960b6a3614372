"""Gold score at equal KL, and the frontier of every method.

  python experiments/preference_losses/measure.py runs/experiments

Writes table.md and figure.png.
"""

import pathlib
import sys

import numpy as np

from alignax.evals.intervals import paired
from alignax.report.matched import at_kl
from experiments import figures

HERE = pathlib.Path(__file__).parent
GOLD, KL = 'probes/total', 'probes/kl_exact'
LEVELS = (0.1, 0.25, 0.5, 1.0)
STAGES = ('sft', 'reward')


def main(workdir: str):
  named = {
    name: runs
    for name, runs in figures.groups(workdir).items()
    if name not in STAGES and runs[0].curve(GOLD)
  }
  found = {
    name: {kl: by_seed(runs, kl) for kl in LEVELS}
    for name, runs in named.items()
  }
  rows = []
  for name, runs in named.items():
    cells = [figures.cell(list(found[name][kl].values())) for kl in LEVELS]
    last = [figures.cell(figures.last(runs, m)) for m in (GOLD, KL)]
    rows.append([name, *cells, against(found, name), *last])
  columns = [
    'method', *(f'at KL {kl:g}' for kl in LEVELS), 'above DPO, mean over KL',
    'at the end', 'KL at the end',
  ]  # fmt: skip
  text = figures.table(columns, rows)
  (HERE / 'table.md').write_text(text + '\n')
  print(text)
  figures.plot(
    HERE / 'figure.png', lambda axes: frontier(axes, named),
    x='KL to the SFT model (nats a response)', y='gold score',
    title='Score against distance, means over seeds', size=(7.2, 5.0),
  )  # fmt: skip


def by_seed(runs, kl: float) -> dict[int, float]:
  """The gold score where each run first came past a KL; none if it did not."""
  found = {}
  for run in runs:
    gold, distance = dict(run.curve(GOLD)), dict(run.curve(KL))
    path = [(distance[s], gold[s]) for s in sorted(gold) if s in distance]
    value = at_kl(path, kl)
    if value is not None:
      found[run.config['seed']] = value
  return found


def against(found, name: str, baseline: str = 'dpo') -> str:
  """Seed by seed: the mean difference over the KLs that both came past."""
  if name == baseline:
    return '–'
  seeds = {}
  for kl in LEVELS:
    own, other = found[name][kl], found[baseline][kl]
    for seed in own.keys() & other.keys():
      seeds.setdefault(seed, []).append(own[seed] - other[seed])
  if not seeds:
    return '–'
  means = [np.mean(values) for values in seeds.values()]
  e = paired(means, np.zeros(len(means)))
  return f'{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]'


def frontier(axes, named):
  for i, (name, runs) in enumerate(named.items()):
    x, y = figures.curve(runs, KL, GOLD)
    style = ('-', '--')[i >= 10]
    color = 'black' if name == 'ppo' else figures.ORDER[i % 10]
    axes.plot(x, y, style, color=color, label=name, lw=1.5, marker='.', ms=4)
  axes.set_xlim(0, 3)


if __name__ == '__main__':
  main(sys.argv[1])
