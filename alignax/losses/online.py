"""Losses on responses that the policy sampled and something judged."""

import jax
import jax.numpy as jnp

from alignax.losses.policy import broadcast_scores
from alignax.losses.preference import dpo_loss
from alignax.numerics import as_bools, matched
from alignax.types import Array, Metrics


def xpo_loss(
  own_logps: Array,
  other_logps: Array,
  ref_own_logps: Array,
  ref_other_logps: Array,
  own_wins: Array,
  *,
  beta: float = 0.1,
  alpha: float = 1e-5,
) -> tuple[Array, Metrics]:
  """Exploratory preference optimisation: online DPO and optimism.

    L = dpo_loss(own, other, by who wins) + α log π(y_other)

  The policy's own sample is compared with one of the reference, and the second
  term moves the policy away from what the reference would say.

  See Xie et al., algorithm 1 (https://arxiv.org/abs/2405.21046).

  Args:
    own_logps: log-prob of the policy's sample under the policy, [B].
    other_logps: log-prob of the reference's sample under the policy, [B].
    ref_own_logps: as `own_logps`, under the reference, [B].
    ref_other_logps: as `other_logps`, under the reference, [B].
    own_wins: bool [B], whether the policy's sample was preferred.
    beta: as for `dpo_loss`.
    alpha: weight of the optimism.

  Returns:
    The loss and the metrics of every pair, all [B].
  """
  _, own, other, ref_own, ref_other = matched(
    own_wins,
    own_logps=own_logps,
    other_logps=other_logps,
    ref_own_logps=ref_own_logps,
    ref_other_logps=ref_other_logps,
  )
  own_wins = as_bools('own_wins', own_wins)
  first_if = lambda a, b: jnp.where(own_wins, a, b)
  loss, metrics = dpo_loss(
    first_if(own, other),
    first_if(other, own),
    first_if(ref_own, ref_other),
    first_if(ref_other, ref_own),
    beta=beta,
  )
  metrics['rewards/own_wins'] = jnp.asarray(own_wins, loss.dtype)
  return loss + alpha * other, metrics


def nash_md_loss(
  logps: Array, ref_logps: Array, win_probs: Array, *, beta: float = 0.1
) -> tuple[Array, Metrics]:
  """Nash mirror descent: policy gradient on the chance to win, with a KL.

    L_t = β sg(log π - log π_ref) log π - (P - ½) log π

  of every token; the loss of a response is the *sum* over its tokens
  (`per_budget` with length 1). P is the chance that it beats a sample of a
  mixture of policy and reference.

  See Munos et al., section 7 (https://arxiv.org/abs/2312.00886).

  Args:
    logps: log-probs of the policy's sample, [..., T].
    ref_logps: the same under the reference, [..., T].
    win_probs: P, [..., T] or of size 1 along some axes ([B, 1]).
    beta: weight of the KL.

  Returns:
    The loss and the metrics of every token, all [..., T].
  """
  logps, ref_logps = matched(logps=logps, ref_logps=ref_logps)
  win_probs = broadcast_scores('win_probs', win_probs, logps)
  log_ratio = jax.lax.stop_gradient(logps - ref_logps)
  loss = (beta * log_ratio - (win_probs - 0.5)) * logps
  return loss, {
    'policy/kl': log_ratio,
    'rewards/win_prob': jnp.broadcast_to(win_probs, logps.shape),
  }


def a2po_loss(
  logps: Array,
  ref_logps: Array,
  rewards: Array,
  optimal_values: Array,
  *,
  beta: float = 1e-3,
) -> tuple[Array, Metrics]:
  """A*-PO: the log-ratio regressed on the optimal advantage.

    L = (β (log π(y) - log π_ref(y)) - (r - V*))²

  with V* = β₁ log mean_i e^{r_i / β₁} over responses of the reference, known
  before training. One response a prompt is enough.

  See Brantley et al., algorithm 1 (https://arxiv.org/abs/2505.20686).

  Args: logps, ref_logps, rewards, optimal_values: of every response, [B].
  Returns: the loss and the metrics of every response, all [B].
  """
  rewards, optimal_values, logps, ref_logps = matched(
    rewards, optimal_values, logps=logps, ref_logps=ref_logps
  )
  ref_logps, advantages = jax.lax.stop_gradient(
    (ref_logps, rewards - optimal_values)
  )
  predicted = beta * (logps - ref_logps)
  metrics = {'rewards/predicted': predicted, 'rewards/advantage': advantages}
  return (predicted - advantages) ** 2, metrics
