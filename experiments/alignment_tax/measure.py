"""What PPO costs on pretraining text, with and without mixing it in.

  python -m experiments.alignment_tax.measure runs/experiments

Writes table.md and figure.png.
"""

import pathlib
import sys

from experiments import figures
from experiments.alignment_tax.sweep import COEFS

HERE = pathlib.Path(__file__).parent
COLUMNS = {
  'loss on pretraining text': 'probes/text_loss', 'gold score': 'probes/total',
  'KL': 'probes/kl_exact',
}  # fmt: skip


def main(workdir: str):
  named = figures.groups(workdir, HERE)
  named = {f'ppo, ptx {c:g}': named[f'ppo, ptx {c:g}'] for c in COEFS}
  first = [run.curve('probes/text_loss')[0][1] for run in named['ppo, ptx 0']]
  text = figures.of_metrics(named, COLUMNS)
  text += f'\n| SFT model, where all start | {figures.cell(first[:1])} | | |'
  figures.save_table(HERE, text)
  figures.plot(
    HERE / 'figure.png',
    lambda axes: figures.draw_paths(
      axes, named, 'probes/text_loss', 'probes/total'
    ),
    x='loss on pretraining text (nats a token)',
    y='gold score', title='The tax, step 0 to 40, means over seeds',
  )  # fmt: skip


if __name__ == '__main__':
  main(sys.argv[1])
