"""Scores that Python gives to text, on the host."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from alignax import sharding
from alignax.rewards.combine import ScoreFn

# (rows of the data set, responses) -> (scores [N], parts {name: [N]})
ScoreTexts = Callable[
  [Sequence[dict], Sequence[str]], tuple[np.ndarray, dict[str, np.ndarray]]
]


def on_host(
  score_texts: ScoreTexts, tokenizer, rows: Sequence[dict]
) -> ScoreFn:
  """Makes a score function of one that reads text.

  Args:
    score_texts: scores responses, each next to its row.
    tokenizer: decodes responses; special tokens are left out.
    rows: of the data set, which the `row` of a rollout counts in.

  Returns:
    The score function. Every host scores its share of the batch, and all of
    them have all scores.
  """

  def score_fn(frozen, batch):
    del frozen
    texts, asked = texts_of(batch, tokenizer, rows)
    own, gather = shared_out(len(texts))
    scores, parts = score_texts(asked[own], texts[own])
    return gather(scores), {name: gather(x) for name, x in parts.items()}

  return score_fn


def texts_of(batch, tokenizer, rows) -> tuple[list[str], list[dict]]:
  """The responses of a batch as text, and the rows that asked for them."""
  given = sharding.to_host({k: batch[k] for k in ('targets', 'mask', 'row')})
  texts = [
    tokenizer.decode(tokens[mask], skip_special_tokens=True)
    for tokens, mask in zip(given['targets'], given['mask'])
  ]
  return texts, [rows[int(i)] for i in given['row']]


def shared_out(n: int) -> tuple[slice, Callable]:
  """This host's part of n things, and what puts all hosts' numbers together."""
  share = -(-n // jax.process_count())
  start = share * jax.process_index()

  def gather(own):
    own = np.asarray(own, np.float32)
    if jax.process_count() == 1:
      return own
    from jax.experimental import multihost_utils

    padded = np.pad(own, (0, share - len(own)))
    whole = multihost_utils.process_allgather(padded, tiled=True)
    return np.asarray(whole)[:n]

  return slice(start, start + share), gather
