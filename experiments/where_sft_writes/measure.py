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
  count = layers['all weights'].shape[1]
  rows = [
    [name, *map(figures.cell, change.T)] for name, change in layers.items()
  ]
  text = '\n\n'.join([
    figures.of_metrics(named, COLUMNS),
    figures.of_pairs(named, 'all weights', COLUMNS),
    figures.table(['change of layer', *map(str, range(count))], rows),
  ])
  curves = {name: change.mean(axis=0) for name, change in layers.items()}
  if real:
    curves['SmolLM2, all weights'] = change = drift(*real)
    text += '\n\n' + of_real(change)
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
  """Relative change of each layer at the end, [runs, layers]."""
  found = []
  for run in runs:
    change = {
      int(match[1]): value
      for key, value in run.last().items()
      if (match := LAYER.match(key))
    }
    found.append([change[i] for i in sorted(change)])
  return np.array(found)


def of_real(change) -> str:
  """Thirds of the layers, the least of all and the most, in thousandths."""
  change = 1000 * np.asarray(change)
  thirds = [part.mean() for part in np.array_split(change, 3)]
  ends = [f'{change[i]:.2f} (layer {i})'
          for i in (change.argmin(), change.argmax())]  # fmt: skip
  return figures.table(
    ['SmolLM2, thousandths', 'first third', 'second', 'last', 'least', 'most'],
    [[f'{len(change)} layers', *(f'{x:.2f}' for x in thirds), *ends]],
  )


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
