"""What clean and noisy demonstrations, and noisy comparisons, come to.

  python -m experiments.data_quality.measure runs/experiments

Writes table.md and figure.png.
"""

import pathlib
import sys

from experiments import figures
from experiments.data_quality.sweep import DEMONSTRATIONS, NOISES, STEPS

HERE = pathlib.Path(__file__).parent
SFT = {
  'gold score': 'samples/total', 'correct': 'samples/correct',
  'concise': 'samples/concise', 'loss on clean ones': 'heldout/loss',
}  # fmt: skip
TUNED = {
  'gold score': 'probes/total', 'correct': 'probes/correct',
  'KL': 'probes/kl_exact',
}  # fmt: skip


def main(workdir: str):
  named = figures.groups(workdir, HERE)
  sft = [f'{d}, {s} steps' for d in DEMONSTRATIONS for s in STEPS]
  tuned = [f'{a}, noise {n}' for a in ('dpo', 'ppo') for n in NOISES]
  pick = lambda names: {name: named[name] for name in names}
  judges = pick([f'reward, noise {noise}' for noise in NOISES])
  text = '\n\n'.join([
    figures.of_metrics(pick(sft), SFT),
    figures.of_metrics(pick(tuned), TUNED),
    figures.of_metrics(judges, {'accuracy on choices as noisy':
                                'heldout/rewards/accuracy'}),
  ])  # fmt: skip
  figures.save_table(HERE, text)

  def fill(axes):
    for name in ('dpo', 'ppo'):
      runs = [named[f'{name}, noise {noise}'] for noise in NOISES]
      figures.draw_levels(axes, NOISES, runs, 'probes/total', name)
    axes.set_xscale('log')

  figures.plot(
    HERE / 'figure.png', fill, x='noise of the annotators (gold score)',
    y='gold score', title='Comparisons of three noises; a dot a seed',
  )  # fmt: skip


if __name__ == '__main__':
  main(sys.argv[1])
