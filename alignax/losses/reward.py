"""Losses of reward models: from scores of responses and what people chose."""

import jax
import jax.numpy as jnp

from alignax.numerics import as_integers, choose, matched
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
  eq. 2 (https://arxiv.org/abs/2307.09288) for the margin; Eisenstein et
  al. (https://arxiv.org/abs/2312.09244) for the centring.

  Args:
    chosen_scores: score of the preferred response, [B].
    rejected_scores: score of the other one, [B].
    margin: m, by how much the scores should differ at least, [B] or a number.
    center: c, 0.01 is usual.

  Returns:
    The loss and the metrics of every pair, all [B].
  """
  chosen, rejected = matched(
    chosen_scores=chosen_scores, rejected_scores=rejected_scores
  )
  if jnp.ndim(margin):
    _, margin = matched(chosen, margin)
  loss = -jax.nn.log_sigmoid(chosen - rejected - margin)
  loss += center * (chosen + rejected) ** 2
  return loss, pair_metrics(chosen, rejected)


def plackett_luce_loss(
  scores: Array, ranks: Array, *, kind: str = 'plackett_luce'
) -> tuple[Array, Metrics]:
  """The negative log-likelihood of a ranking of K responses.

    L = Σ_i log(e^{s_i} + Σ_{j worse than i} e^{s_j}) - s_i

  the best is chosen among all, then the next among the rest, and so on. Tied
  responses say nothing about each other. With two responses it is
  `bradley_terry_loss`. With kind='pairs' it is instead the mean of that loss
  over all pairs that are not tied, as InstructGPT has it.

  See Plackett 1975 (https://doi.org/10.2307/2346567); Ouyang et al., eq. 1
  (https://arxiv.org/abs/2203.02155) for the pairs.

  Args:
    scores: [..., K].
    ranks: int [..., K]; 1 is best, equal ranks are ties, 0 marks a candidate
      that is not there. Only their order matters.
    kind: 'plackett_luce' or 'pairs'.

  Returns:
    The loss and the metrics of every ranking, all [...]; 0 where there is
    nothing to compare.
  """
  _, scores = matched(ranks, scores=scores)
  ranks = as_integers('ranks', ranks)
  exists = ranks > 0
  scores = jnp.where(exists, scores, 0.0)
  over = lambda x: x[..., :, None]
  under = lambda x: x[..., None, :]
  worse = over(exists) & under(exists) & (under(ranks) > over(ranks))
  differences = over(scores) - under(scores)
  pairs = jnp.maximum(jnp.sum(worse, axis=(-2, -1)), 1)
  mean_over_pairs = lambda x: jnp.sum(x, axis=(-2, -1), where=worse) / pairs

  def listwise():
    contenders = worse | jnp.eye(scores.shape[-1], dtype=bool)
    logz = jax.nn.logsumexp(-differences, axis=-1, where=contenders)
    return jnp.sum(logz, axis=-1, where=exists)

  def pairwise():
    return mean_over_pairs(-jax.nn.log_sigmoid(differences))

  kinds = {'plackett_luce': listwise, 'pairs': pairwise}
  loss = choose('kind of ranking loss', kind, kinds)()
  return loss, {
    'rewards/margin': mean_over_pairs(differences),
    'rewards/accuracy': mean_over_pairs(0.5 + 0.5 * jnp.sign(differences)),
  }


def regression_reward_loss(
  scores: Array, ratings: Array
) -> tuple[Array, Metrics]:
  """Squared error to a rating on a scale.

    L = (r - y)²

  See Wang et al. (https://arxiv.org/abs/2406.08673).

  Args: scores and ratings, [B]. No gradient flows to `ratings`.
  Returns: the loss and the metrics of every response, all [B].
  """
  ratings, scores = matched(ratings, scores=scores)
  error = scores - jax.lax.stop_gradient(ratings)
  return error**2, {'rewards/score': scores, 'rewards/error': jnp.abs(error)}


def pair_metrics(chosen_rewards: Array, rejected_rewards: Array) -> Metrics:
  """What one wants to see of pairs. A tie is half right."""
  margins = chosen_rewards - rejected_rewards
  return {
    'rewards/chosen': chosen_rewards,
    'rewards/rejected': rejected_rewards,
    'rewards/margin': margins,
    'rewards/accuracy': 0.5 + 0.5 * jnp.sign(margins),
  }
