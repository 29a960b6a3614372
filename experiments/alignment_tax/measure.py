"""What PPO costs on pretraining text, with and without mixing it in.

  python -m experiments.alignment_tax.measure runs/experiments

Writes table.md and figure.png.
"""

import pathlib
import sys

from alignax import data, models
from alignax.evals import probes
from experiments import figures
from experiments.alignment_tax.sweep import COEFS

HERE = pathlib.Path(__file__).parent
PRETRAINED = 'quickstart stage=pretrain'  # As the plan names it.
COLUMNS = {
  'loss on pretraining text': 'probes/text_loss', 'gold score': 'probes/total',
  'KL': 'probes/kl_exact',
}  # fmt: skip


def main(workdir: str):
  every = figures.groups(workdir, HERE)
  named = {f'ppo, ptx {c:g}': every[f'ppo, ptx {c:g}'] for c in COEFS}
  first = [run.curve('probes/text_loss')[0][1] for run in named['ppo, ptx 0']]
  text = figures.of_metrics(named, COLUMNS)
  text += f'\n| SFT model, where all start | {figures.cell(first[:1])} | | |'
  run = named['ppo, ptx 0'][0]
  pretrained = text_loss(every[PRETRAINED][0].path, run.config)
  text += f'\n| pretrained model | {figures.cell([pretrained])} | | |\n\n'
  text += figures.of_pairs(named, 'ppo, ptx 0', COLUMNS)
  figures.save_table(HERE, text)
  figures.plot(
    HERE / 'figure.png',
    lambda axes: figures.draw_paths(
      axes, named, 'probes/text_loss', 'probes/total'
    ),
    x='loss on pretraining text (nats a token)',
    y='gold score', title='The tax, step 0 to 40, means over seeds',
  )  # fmt: skip


def text_loss(path, config) -> float:
  """Of a model on disk: the same loss of the same text as in the runs."""
  model, params = models.load(path)
  kw = dict(kind='text', length=config['evals.probes.text_length'])
  rows = data.load_rows(config['evals.probes.text'])
  examples, _ = data.prepare(rows, data.load_tokenizer(path), **kw)
  batches = data.Batches(
    examples, batch_size=config['data.batch_size'], seed=0, packing=True,
    shuffle=False, repeat=False, **kw,
  )  # fmt: skip
  loss = probes.make_text_loss(model, lambda params: params)
  nll, count = map(sum, zip(*(loss(params, batch) for batch in batches)))
  return float(nll / count)


if __name__ == '__main__':
  main(sys.argv[1])
