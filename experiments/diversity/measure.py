"""Variety, and score on known and unknown input, of four ways to answer.

  python -m experiments.diversity.measure runs/experiments

8 responses to each of 96 instructions; for best-of-16 each is the one that the
reward model likes best of 16. Writes table.md and figure.png.
"""

import pathlib
import random
import sys

import jax
import numpy as np

from alignax import data, models
from alignax.cli import quickstart
from alignax.data import synthetic
from alignax.data.synthetic import words
from alignax.evals import probes
from alignax.evals.samples import TOKENS
from experiments import figures

HERE = pathlib.Path(__file__).parent
PROMPTS, GROUP, BEST_OF = 96, 8, 16
COLUMNS = {
  'gold': 'gold score', 'unknown': 'gold score, unknown wording',
  'longer': 'gold score, longer lists',
  'within/distinct_2': 'distinct 2-grams within prompts',
  'within/self_bleu': 'self-BLEU within prompts',
  'across/distinct_2': 'distinct 2-grams across', 'length': 'tokens',
}  # fmt: skip
MARKED = {
  'gold': 'known wording',
  'unknown': 'unknown wording',
  'longer': 'longer lists',
}


def main(workdir: str):
  named = figures.groups(workdir, HERE)
  path = lambda name: named[name][0].path
  model, params = models.load(path('reward'))
  compiled = jax.jit(model.scores)
  judge = lambda rows: np.asarray(compiled(params, rows))[..., 0]
  found = {
    'SFT': [measure(path('sft'), seed) for seed in range(3)],
    f'best of {BEST_OF}': [
      measure(path('sft'), seed, judge) for seed in range(3)
    ],
  }
  for name in ('dpo', 'ppo'):
    found[name.upper()] = [
      measure(run.path, run.config['seed']) for run in named[name]
    ]
  rows = [
    [name, *(figures.cell([m[key] for m in measured]) for key in COLUMNS)]
    for name, measured in found.items()
  ]
  text = figures.table(['model', *COLUMNS.values()], rows)
  figures.save_table(HERE, text)

  def fill(axes):
    for name, measured in found.items():
      x = [m['within/distinct_2'] for m in measured]
      for key, marker in (('gold', 'o'), ('unknown', 'x'), ('longer', '^')):
        y = [m[key] for m in measured]
        label = f'{name}, {MARKED[key]}'
        color = figures.ORDER[list(found).index(name)]
        axes.plot(x, y, marker, color=color, label=label)

  figures.plot(
    HERE / 'figure.png', fill, x=COLUMNS['within/distinct_2'], y='gold score',
    title='Score against variety, a mark a seed',
  )  # fmt: skip


def measure(path, seed: int, judge=None) -> dict[str, float]:
  """What responses are worth, and how much they differ."""
  prompts = lambda phrasings: synthetic.rows(
    'prompts', n=PROMPTS, seed=9, split='heldout', phrasings=phrasings
  )
  texts, gold, lengths = respond(path, prompts('train'), seed, judge)
  varied = probes.of_texts(texts, lengths, None, group=GROUP)
  others = {'unknown': prompts('heldout'), 'longer': longer_lists()}
  return varied | {'gold': np.mean(gold)} | {
    key: np.mean(respond(path, rows, seed, judge)[1])
    for key, rows in others.items()
  }


def longer_lists() -> list[dict]:
  """Instructions about four words; those of training have two or three."""
  tasks = tuple(t for t, family in synthetic.FAMILIES.items() if family.about)
  rows, rng = [], random.Random(9)
  while len(rows) < PROMPTS:
    lists = {
      'nouns': rng.sample(words.NOUNS, 4),
      'numbers': rng.sample(words.NUMBERS[:10], 4),
    }
    row = synthetic.instruction(rng, split=None, tasks=tasks, lists=lists)
    if any(' '.join(four) in row['key'] for four in lists.values()):
      rows.append(row)
  return rows


def respond(path, prompts, seed: int, judge):
  """`GROUP` responses to every prompt, next to each other."""
  model, params = models.load(path)
  tokenizer = data.load_tokenizer(path)
  texts, lengths = [], []
  for i in range(GROUP):
    drawn = best(
      lambda number: quickstart.draw(
        model, params, tokenizer, prompts, seed=1000 * seed + number
      ),
      range(i * BEST_OF, (i + 1) * BEST_OF) if judge else [i],
      judge,
    )
    texts.append(drawn[0])
    lengths.append(drawn[1])
  flat = lambda columns: [x for row in zip(*columns) for x in row]
  texts, lengths = flat(texts), flat(lengths)
  asked = [row for row in prompts for _ in range(GROUP)]
  gold = [synthetic.gold_score(*pair)['total'] for pair in zip(asked, texts)]
  return texts, gold, lengths


def best(draw, numbers, judge):
  """Of several draws, the text that a reward model scores highest, by row."""
  texts, lengths, scores = [], [], []
  for number in numbers:
    found, rows = draw(number)
    texts.append(found)
    lengths.append(rows['lengths'])
    if judge is None:
      return found, rows['lengths']
    scores.append(judge({k: rows[k] for k in TOKENS}))
  which = np.argmax(scores, axis=0)
  take = lambda columns: [columns[w][i] for i, w in enumerate(which)]
  return take(texts), take(lengths)


if __name__ == '__main__':
  main(sys.argv[1])
