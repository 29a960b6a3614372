"""Gold score and KL of every method, and DPO's gold score at the same KL.

  python -m experiments.preference_losses.measure runs/experiments

DPO's is interpolated between its runs of several betas, and the SFT model: in
the root of KL, in which the gold score is nearly straight (Gao et al. 2023).
Of the two losses that have settings of their own, also what the common ones
come to: runs of `defaults.py`. Writes table.md and figure.png.
"""

import pathlib
import sys

import numpy as np

from experiments import figures
from experiments.preference_losses.sweep import OWN

HERE = pathlib.Path(__file__).parent
GOLD, KL = 'probes/total', 'probes/kl_exact'
STAGES = ('sft', 'reward')
FAR, LOW = 2.5, 0.5  # Of the figure: most KL and least score that it shows.


def main(workdir: str):
  named = {
    name: runs
    for name, runs in figures.groups(workdir, HERE).items()
    if name not in STAGES and runs[0].curve(GOLD)
  }
  dpo = [runs for name, runs in named.items() if name.split(',')[0] == 'dpo']
  columns = ['method', 'gold score', 'KL', 'above DPO at that KL', 'tokens']
  rows = []
  for name, runs in sorted(named.items(), key=rank):
    cells = [figures.cell(figures.last(runs, m)) for m in (GOLD, KL)]
    above = '–' if runs in dpo else above_dpo(runs, dpo)
    tokens = figures.cell(figures.last(runs, 'probes/length'))
    rows.append([name, *cells, above, tokens])
  common = figures.groups(workdir, HERE, 'defaults.py')
  text = figures.table(columns, rows) + '\n\n' + figures.of_metrics(
    {f'{name}, settings of all': common[name] for name in OWN},
    {'gold score': GOLD, 'KL': KL, 'tokens': 'probes/length'},
  )
  figures.save_table(HERE, text)
  figures.plot(
    HERE / 'figure.png', lambda axes: frontier(axes, named, dpo),
    x='KL to the SFT model (nats a response)', y='gold score',
    title='Where each method came out: means over seeds, and DPO by beta',
    size=(7.2, 5.0),
  )  # fmt: skip


def rank(item) -> float:
  return -np.mean(figures.last(item[1], GOLD))


def end_of(run) -> tuple[float, float]:
  """(KL, gold) where a run ended."""
  return run.last()[KL], run.last()[GOLD]


def frontier_of(dpo, seed: int):
  """DPO's (KL, gold) of a seed in the order of KL; first its start, at 0."""
  found = [run for runs in dpo for run in runs if run.config['seed'] == seed]
  # The SFT model is the same for all; what was drawn from it is the seed's.
  start = found[0].curve(GOLD)[0][1]
  return np.array(sorted([(0.0, start), *map(end_of, found)]))


def at_kl(known, kl):
  """The gold score of a frontier at a KL, or at several."""
  return np.interp(np.sqrt(kl), np.sqrt(known[:, 0]), known[:, 1])


def above_dpo(runs, dpo) -> str:
  """Seed by seed: what a method is above DPO's frontier; a dash beyond it."""
  found = []
  for run in runs:
    kl, gold = end_of(run)
    known = frontier_of(dpo, run.config['seed'])
    if kl <= known[-1, 0]:
      found.append(gold - at_kl(known, kl))
  if len(found) < len(runs):
    return '–'
  return figures.signed(found, np.zeros(len(found)))


def frontier(axes, named, dpo):
  seeds = [run.config['seed'] for run in dpo[0]]
  line = np.mean([frontier_of(dpo, seed) for seed in seeds], axis=0)
  axes.plot(*line.T, 'k.')
  kl = np.linspace(0.0, line[-1, 0], 200)
  axes.plot(kl, at_kl(line, kl), 'k-', label='dpo, by beta', lw=1)
  others = [item for item in named.items() if item[1] not in dpo]
  for i, (name, runs) in enumerate(sorted(others, key=rank)):
    x, y = (np.mean(figures.last(runs, m)) for m in (KL, GOLD))
    if x > FAR or y < LOW:
      name = f'{name} (at {x:.3g}, {y:.2g})'
    mark = '*' if name == 'ppo' else 'osv^D'[i // 10]
    at, color = (min(x, FAR), max(y, LOW)), figures.ORDER[i % 10]
    axes.plot(*at, mark, color=color, label=name)
  axes.set_xlim(-0.1, FAR * 1.5)  # Room for the names.


if __name__ == '__main__':
  main(sys.argv[1])
