"""Reward models as score functions."""

import jax

from alignax import train

TOKENS = ('inputs', 'targets', 'segments', 'positions', 'mask')


def reward_model_scores(reward, *, role: str = 'reward', join=train.separate):
  """Makes the score function of a frozen reward model.

  Args:
    reward: an `alignax.models.Model`.
    role: whose parameters in `frozen` are its own.
    join: see `train.make_update`.
  """

  @jax.jit
  def scores(frozen, rows):
    _, frozen = join({}, frozen)
    return reward.scores(frozen[role], rows)[:, 0]

  def score_fn(frozen, rows):
    found = scores(frozen, {k: rows[k] for k in TOKENS})
    return found, {}

  return score_fn
