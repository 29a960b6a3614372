"""Losses of reward models: from scores of responses and what people chose."""

import jax
import jax.numpy as jnp

from alignax.numerics import matched
from alignax.types import Array, Metrics


def bradley_terry_loss(
  chosen_scores: Array,
  rejected_scores: Array,
  *,
  margin: Array | float = 0.0,
  center: float = 0.0,
) -> tuple[Array, Metrics]:
  """The negative log-likelihood of a choice between two responses.

    L = -log σ(r⁺ - r⁻ - m) + c (r⁺ + r⁻)²

  The first term sees only differences, so scores may drift together; the second
  holds them around zero.

  See Ouyang et al., eq. 1 (https://arxiv.org/abs/2203.02155); Touvron et al.,
  eq. 2 (https://arxiv.org/abs/2307.09288) for the margin; Eisenstein et al.,
  section 2 (https://arxiv.org/abs/2312.09244) for the centring.

  Args:
    chosen_scores: score of the preferred response, [B].
    rejected_scores: score of the other one, [B].
    margin: m, by how much the scores should differ at least, [B] or a number.
    center: c, 0.01 is usual.

  Returns:
    The loss and the metrics of every pair, all [B].
  """
  chosen, rejected = matched(chosen_scores, rejected_scores)
  if jnp.ndim(margin):
    _, margin = matched(chosen, margin)
  loss = -jax.nn.log_sigmoid(chosen - rejected - margin)
  loss += center * (chosen + rejected) ** 2
  return loss, pair_metrics(chosen, rejected)


def pair_metrics(chosen_rewards: Array, rejected_rewards: Array) -> Metrics:
  """What one wants to see of pairs. A tie is half right."""
  margins = chosen_rewards - rejected_rewards
  return {
    'rewards/chosen': chosen_rewards,
    'rewards/rejected': rejected_rewards,
    'rewards/margin': margins,
    'rewards/accuracy': 0.5 + 0.5 * jnp.sign(margins),
  }
