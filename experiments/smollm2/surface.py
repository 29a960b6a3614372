"""How far the surface of a text tells which of two responses people prefer.

  python -m experiments.smollm2.surface train_clean.jsonl runs/smollm2

A logistic regression on nine features of the chosen and the rejected text
(length, lists, apologies, ...), cross-validated: what a reward model has to
beat. Rows have prompt, chosen, rejected and the scores that raters gave.
"""

import re
import sys

import numpy as np

from alignax import data
from experiments.smollm2.prepare import gap, read

FOLDS, SHUFFLES = 5, 5


def features(text: str, tokens: list[int]) -> list[float]:
  lower = text.lower()
  return [
    np.log1p(len(tokens)),
    text.count('\n'),
    text.count('- ') + len(re.findall(r'\n\d+\.', text)),
    text.count(','),
    len(set(tokens)) / max(len(tokens), 1),
    'sorry' in lower,
    'as an ai' in lower,
    text.strip().endswith(('.', '!', '?')),
    text.count('"'),
  ]


def fit(differences, *, decay=1e-2, rate=0.1, steps=300):
  """Weights under which the first of each pair scores higher."""
  weights = np.zeros(differences.shape[1])
  for _ in range(steps):
    missing = 1 / (1 + np.exp(differences @ weights))
    gradient = differences.T @ missing / len(differences)
    weights += rate * (gradient - decay * weights)
  return weights


def accuracy(differences) -> float:
  """Mean accuracy on what was left out, over folds and shuffles."""
  rng, found = np.random.default_rng(0), []
  for _ in range(SHUFFLES):
    for held in np.array_split(rng.permutation(len(differences)), FOLDS):
      weights = fit(np.delete(differences, held, axis=0))
      found.append(np.mean(differences[held] @ weights > 0))
  return float(np.mean(found))


def main(path: str, model: str):
  tokenizer = data.load_tokenizer(model)
  encode = lambda text: tokenizer(text)['input_ids']
  rows = []
  for row in read(path):
    pair = encode(row['chosen']), encode(row['rejected'])
    rows.append((len(encode(row['prompt'])), *pair, gap(row)))
  for length, whole in ((192, False), (384, False), (384, True), (512, True)):
    for least in (0, 1):
      pairs = [
        (chosen[: length - prompt], rejected[: length - prompt])
        for prompt, chosen, rejected, apart in rows
        if apart >= least
        and prompt + 20 < length
        and (not whole or prompt + max(map(len, (chosen, rejected))) < length)
      ]
      sides = (
        np.array([features(tokenizer.decode(t), t) for t in side], float)
        for side in zip(*(pair for pair in pairs if pair[0] != pair[1]))
      )
      difference = np.subtract(*sides)
      difference /= difference.std(axis=0) + 1e-9
      kind = 'that fit into' if whole else 'cut to'
      print(
        f'{len(difference)} pairs {kind} {length} tokens, ratings at least '
        f'{least} apart: {accuracy(difference):.3f}'
      )


if __name__ == '__main__':
  main(*sys.argv[1:])
