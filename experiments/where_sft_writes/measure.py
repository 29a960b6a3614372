"""Relative change of every layer's weights, and what adapters come to.

  python -m experiments.where_sft_writes.measure runs/experiments \
      [runs/smollm2 runs/sft]

With a pretrained model and its SFT run, also of a real one. Writes table.md and
figure.png.
"""

import pathlib
import re
import sys

import numpy as np

from experiments import figures
from experiments.where_sft_writes.sweep import RANKS

HERE = pathlib.Path(__file__).parent
COLUMNS = {
  'gold score': 'samples/total', 'correct': 'samples/correct',
  'held-out loss': 'heldout/loss', 'KL': 'probes/kl_exact',
}  # fmt: skip
LAYER = re.compile(r'^probes/drift/layer_?(\d+)$')


def main(workdir: str, *real: str):
  named = figures.groups(workdir, HERE)
  names = [f'rank {rank}' if rank else 'all weights' for rank in RANKS]
  named = {name: named[name] for name in names}
  layers = {name: by_layer(runs) for name, runs in named.items()}
  count = len(layers['all weights'])
  rows = [
    [name, *(f'{x:.3f}' for x in change)] for name, change in layers.items()
  ]
  text = figures.of_metrics(named, COLUMNS) + '\n\n' + figures.table(
    ['change of layer', *map(str, range(count))], rows
  )
  curves = dict(layers)
  if real:
    curves['SmolLM2, all weights'] = change = drift(*real)
    thirds = [f'{part.mean():.4f}' for part in np.array_split(change, 3)]
    text += f'\n\nSmolLM2, thirds of its {len(change)} layers: ' + ', '.join(
      thirds
    )
  figures.save_table(HERE, text)

  def fill(axes):
    for name, change in curves.items():
      depth = np.linspace(0, 1, len(change))
      axes.plot(depth, change / change.mean(), marker='.', label=name)

  figures.plot(
    HERE / 'figure.png', fill, x='depth (first layer 0, last 1)',
    y='relative change / its mean over layers', title='Where SFT writes',
  )  # fmt: skip


def by_layer(runs) -> np.ndarray:
  """Relative change of each layer at the end, mean over runs."""
  found = []
  for run in runs:
    change = {
      int(match[1]): value
      for key, value in run.last().items()
      if (match := LAYER.match(key))
    }
    found.append([change[i] for i in sorted(change)])
  return np.mean(found, axis=0)


def drift(before: str, after: str) -> np.ndarray:
  """The same of two models on disk."""
  from alignax import models
  from alignax.evals import drift

  params = [models.load(path)[1] for path in (after, before)]
  change = {k: float(v) for k, v in drift.by_layer(*params).items()}
  numbered = {
    int(match[1]): value
    for key, value in change.items()
    if (match := LAYER.match(f'probes/drift/{key}'))
  }
  return np.array([numbered[i] for i in sorted(numbered)])


if __name__ == '__main__':
  main(*sys.argv[1:])
