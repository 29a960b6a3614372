"""Reward models as score functions: one, or several that may disagree."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from alignax import train
from alignax.rewards.combine import ScoreFn
from alignax.types import Array

TOKENS = ('inputs', 'targets', 'segments', 'positions', 'mask')


def reward_model_scores(
  reward, *, role: str = 'reward', join=train.separate
) -> ScoreFn:
  """Makes the score function of a frozen reward model.

  Args:
    reward: an `alignax.models.Model`.
    role: whose parameters in `frozen` are its own.
    join: see `train.make_update`.
  """
  score = _compiled(reward, role, join)
  return lambda frozen, rows: (score(frozen, _tokens(rows)), {})


def ensemble_scores(
  models: Mapping,
  *,
  penalty: str = 'std',
  coef: float = 1.0,
  join=train.separate,
) -> ScoreFn:
  """Makes the score function of several reward models.

  Where members disagree, a response is likely to be one that no annotator has
  seen the like of, and that the policy was led to by their errors. Members
  should differ in their seed from before fine-tuning on, or they err together,
  and be trained alike: their scales are taken as they are.

  Members run one after the other, and of one architecture are compiled once.

  See Coste et al. 2023 (https://arxiv.org/abs/2310.02743) and Eisenstein et al.
  2023 (https://arxiv.org/abs/2312.09244).

  Args:
    models: by role; the parameters are `frozen[role]`.
    penalty: see `pessimistic`.
    coef: see `pessimistic`.
    join: see `train.make_update`.
  """
  check_penalty(penalty)
  first = {}  # The role under which an architecture is compiled.
  for role, model in models.items():
    first.setdefault(model, role)
  compiled = {
    model: _compiled(model, role, join) for model, role in first.items()
  }

  def score(frozen, tokens, role):
    model = models[role]
    return compiled[model](frozen | {first[model]: frozen[role]}, tokens)

  def score_fn(frozen, rows):
    tokens = _tokens(rows)
    scores = jnp.stack([score(frozen, tokens, role) for role in models])
    parts = {'mean': jnp.mean(scores, axis=0), 'std': jnp.std(scores, axis=0)}
    return pessimistic(scores, penalty=penalty, coef=coef), parts

  return score_fn


def pessimistic(scores: Array, *, penalty: str, coef: float) -> Array:
  """One score of those of several members. [M, B] -> [B].

    'std'       mean - c · std
    'variance'  mean - c · std², the uncertainty-weighted one of Coste et al.
    'worst'     min
    'mean'      mean

  The std is that of the members themselves (1 / M).
  """
  check_penalty(penalty)
  if penalty == 'worst':
    return jnp.min(scores, axis=0)
  cost = {'mean': jnp.zeros_like, 'std': jnp.sqrt, 'variance': jnp.asarray}
  variance = jnp.var(scores, axis=0)
  return jnp.mean(scores, axis=0) - coef * cost[penalty](variance)


def check_penalty(penalty: str):
  known = ('mean', 'std', 'variance', 'worst')
  if penalty not in known:
    raise ValueError(
      f'penalty is {penalty!r}; it is one of {", ".join(known)}.'
    )


def _compiled(reward, role, join):
  """(frozen, tokens) -> scores [B]; what it does not read is not passed on."""

  @jax.jit
  def scores(frozen, tokens):
    _, frozen = join({}, frozen)
    return reward.scores(frozen[role], tokens)[:, 0]

  return scores


def _tokens(rows):
  return {k: rows[k] for k in TOKENS}
