"""Several rewards as one, each logged by itself; and responses without one."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp

from alignax import advantages
from alignax.types import Array, Batch

# Parts that tell which responses a reward has no score for.
SHARES = ('/failed', '/too_long')
# (frozen, rows) -> (scores [B], parts {name: [B]})
ScoreFn = Callable[..., tuple[Array, dict[str, Array]]]


class Term(NamedTuple):
  """One of several rewards.

  Attributes:
    score_fn: what gives it.
    weight: of it in the sum; 0 only logs it.
    standardise: zero mean and unit variance over the batch, so that rewards of
      different scales can be weighed against each other.
    clip: largest absolute value, after that; 0 clips nothing.
  """

  score_fn: ScoreFn
  weight: float = 1.0
  standardise: bool = False
  clip: float = 0.0

  def raw(self) -> 'Term':
    """The same for evaluation: as it was given, if it is standardised.

    The mean of what was standardised over the same batch is 0, whatever the
    responses are worth; the clip is meant for that scale too.
    """
    if not self.standardise:
      return self
    return self._replace(standardise=False, clip=0.0)


def weighted_sum(terms: Mapping[str, Term]) -> ScoreFn:
  """Makes the score function of several rewards, Σ weight · reward.

  Its parts are every reward as it was given, before it is standardised and
  clipped. A response that lacks a score of one of those with a weight has none.
  """

  def score_fn(frozen, rows):
    total, parts = jnp.zeros(rows['lengths'].shape), {}
    for name, term in terms.items():
      scores, inner = term.score_fn(frozen, rows)
      parts |= {name: scores} | {f'{name}/{k}': v for k, v in inner.items()}
      if term.weight:  # Else what is not a number would still be one in sum.
        total += term.weight * _shaped(scores, term)
    return total, parts

  return score_fn


def overlong_scores(*, max_length: int, cache: int) -> ScoreFn:
  """Makes the score function of DAPO's length penalty, in tokens.

  Args: see `alignax.overlong_penalty`.
  """
  if not 0 < cache <= max_length:
    raise ValueError(
      f'cache is {cache} of a max_length of {max_length}; give a part of it.'
    )

  def score_fn(frozen, rows):
    del frozen
    lengths = rows['lengths']
    return advantages.overlong_penalty(
      lengths, max_length=max_length, cache=cache
    ), {}

  return score_fn


def summary(scores: Array, parts: Mapping[str, Array]) -> dict[str, Array]:
  """Metrics of a batch: the mean of every reward, and what was left out.

  Means are over the responses that have that reward.
  """
  means = {
    f'rewards/{name}': mean_of(x, jnp.isfinite(x)) for name, x in parts.items()
  }
  return means | {'rewards/excluded': jnp.sum(~jnp.isfinite(scores))}


def with_left_out(
  metrics: dict[str, Array], others: list[dict[str, Array]]
) -> dict[str, Array]:
  """A summary, which also counts what lacked a score in further batches.

  Rewards are those of the one batch. But a checker that fails in another, as
  large, is to be seen as well.

  Args:
    metrics: of `summary`, and more perhaps.
    others: the summaries of the further batches.

  Returns:
    The metrics, 'rewards/excluded' being the sum and the shares 'failed' and
    'too_long' the means over all batches.
  """
  every = [metrics, *others]
  found = {'rewards/excluded': sum(m['rewards/excluded'] for m in every)}
  for name in metrics:
    if name.startswith('rewards/') and name.endswith(SHARES):
      found[name] = sum(m[name] for m in every) / len(every)
  return metrics | found


def leave_out(rows: Batch, scores: Array) -> tuple[Batch, Array, Array]:
  """Rows from which nothing is learned where there is no score.

  Such a response keeps its place, and loses its mask: no mean, weight or loss
  counts it.

  Args:
    rows: with `mask` [B, T].
    scores: [B]; NaN or infinite where there is none.

  Returns:
    The rows, the scores (0 where there is none), and which there are, [B].
  """
  scored = jnp.isfinite(scores)
  rows = rows | {'mask': rows['mask'] & scored[:, None]}
  return rows, jnp.where(scored, scores, 0.0), scored


def mean_of(x: Array, scored: Array) -> Array:
  """The mean of those that count; 0 where none does."""
  x, scored = jnp.asarray(x), jnp.asarray(scored)
  return jnp.sum(x, where=scored) / jnp.maximum(jnp.sum(scored), 1)


def _shaped(scores, term):
  scores = jnp.asarray(scores, jnp.float32)
  if term.standardise:
    scored = jnp.isfinite(scores)
    white = advantages.whiten(scores, scored)
    scores = jnp.where(scored, white, scores)
  if not term.clip:
    return scores
  # What is infinite was not given, and a clip would make it a score.
  clipped = jnp.clip(scores, -term.clip, term.clip)
  return jnp.where(jnp.isfinite(scores), clipped, scores)
