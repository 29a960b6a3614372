"""What annotators who like length make of each algorithm, raw and controlled.

  python -m experiments.length_bias.measure runs/experiments

Every model answers 256 instructions, as the SFT model does, and the annotators
who its comparisons came from say how likely they are to prefer it. The
length-controlled win rate is what a logistic regression on the difference of
lengths, as in AlpacaEval 2 (Dubois et al. 2024, section 3,
https://arxiv.org/abs/2404.04475), gives where there is none. Writes table.md
and figure.png.
"""

import pathlib
import sys

import numpy as np

from alignax import data, models
from alignax.cli import quickstart
from alignax.data import synthetic
from alignax.data.synthetic.annotators import utility
from experiments import figures
from experiments.length_bias.sweep import BIASES

HERE = pathlib.Path(__file__).parent
PROMPTS = 256
COLUMNS = ('gold score', 'correct', 'tokens', 'win rate, by these annotators',
           'length-controlled', 'win rate, by gold')  # fmt: skip


def main(workdir: str):
  named = figures.groups(workdir, HERE)
  prompts = synthetic.rows('prompts', n=PROMPTS, seed=9, split='heldout')
  base = respond(named['sft'][0].path, prompts, seed=99)
  rows, drawn = [], {}
  for bias in BIASES:
    for name in ('dpo', 'ld-dpo', 'simpo', 'ppo'):
      runs = named[f'{name}, bias {bias:g}']
      found = [
        measure(respond(run.path, prompts, run.config['seed']), base, prompts,
                bias)
        for run in runs
      ]  # fmt: skip
      drawn[name, bias] = found
      cells = [figures.cell([m[c] for m in found]) for c in COLUMNS]
      rows.append([name, f'{bias:g}', *cells])
  text = figures.table(['model', 'bias a word', *COLUMNS], rows)
  figures.save_table(HERE, text)

  def fill(axes):
    for i, ((name, bias), found) in enumerate(drawn.items()):
      label = f'{name}, bias {bias:g}'
      axes.plot(
        [m['tokens'] for m in found], [m['gold score'] for m in found],
        'ox'[bias > 0], color=figures.ORDER[i % 4], label=label,
      )  # fmt: skip

  figures.plot(
    HERE / 'figure.png', fill, x='length of a response (tokens)',
    y='gold score', title='What a liking for length does, a mark a seed',
  )  # fmt: skip


def respond(path, prompts, seed: int):
  """Texts and their lengths."""
  model, params = models.load(path)
  texts, rows = quickstart.draw(
    model, params, data.load_tokenizer(path), prompts, seed=seed
  )
  return texts, np.asarray(rows['lengths'], float)


def measure(own, base, prompts, bias: float) -> dict[str, float]:
  value = lambda texts, **kw: np.array([
    utility(row, text, **kw) for row, text in zip(prompts, texts)
  ])  # fmt: skip
  wins = 1 / (1 + np.exp(value(base[0], length_bias=bias)
                         - value(own[0], length_bias=bias)))  # fmt: skip
  score = lambda texts: [
    synthetic.gold_score(row, text) for row, text in zip(prompts, texts)
  ]
  scores = score(own[0])
  gold = np.array([s['total'] for s in scores])
  other = np.array([s['total'] for s in score(base[0])])
  return {
    'gold score': gold.mean(),
    'correct': np.mean([s['correct'] for s in scores]),
    'tokens': own[1].mean(),
    'win rate, by these annotators': wins.mean(),
    'length-controlled': controlled(wins, own[1] - base[1]),
    'win rate, by gold': np.mean(0.5 + 0.5 * np.sign(gold - other)),
  }


def controlled(wins, longer, *, steps: int = 50) -> float:
  """The win rate at equal length, of σ(a + b tanh(Δlength / std)).

  Newton's method on the cross-entropy, with a little weight on small b.
  """
  scaled = np.tanh(longer / (longer.std() + 1e-9))
  x = np.stack([np.ones_like(scaled), scaled], axis=1)
  weights, ridge = np.zeros(2), np.diag([0.0, 1e-3 * len(wins)])
  for _ in range(steps):
    p = 1 / (1 + np.exp(-x @ weights))
    gradient = x.T @ (wins - p) - ridge @ weights
    hessian = x.T @ (x * (p * (1 - p))[:, None]) + ridge
    weights += np.linalg.solve(hessian, gradient)
  return float(1 / (1 + np.exp(-weights[0])))


if __name__ == '__main__':
  main(sys.argv[1])
