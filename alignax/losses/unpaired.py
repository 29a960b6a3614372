"""Losses on single responses that are good or bad, against a reference."""

import jax
import jax.numpy as jnp

from alignax.numerics import as_bools, matched, widened
from alignax.types import Array, Metrics


def kto_loss(
  logps: Array,
  ref_logps: Array,
  desirable: Array,
  kl: Array,
  *,
  beta: float = 0.1,
  desirable_weight: float = 1.0,
  undesirable_weight: float = 1.0,
) -> tuple[Array, Metrics]:
  """Kahneman-Tversky optimisation.

    L = λ_D σ(-β (r - z))  of desirable,  λ_U σ(-β (z - r))  of other responses

  with r = log π(y) - log π_ref(y) and the reference point z, an estimate of
  KL(π ‖ π_ref) from *mismatched* responses (y of another prompt of the batch):
  the mean of their log-ratios. A negative estimate counts as 0. No gradient
  flows to z or `ref_logps`.

  See Ethayarajh et al., section 4 (https://arxiv.org/abs/2402.01306).

  Args:
    logps: log-prob of every response under the policy, [B].
    ref_logps: the same under the reference, [B].
    desirable: bool [B].
    kl: z, a scalar or [B].
    beta: how strongly the policy is held to the reference.
    desirable_weight: λ_D.
    undesirable_weight: λ_U; λ_D n_D : λ_U n_U between 1 and 4/3 is advised.

  Returns:
    The loss and the metrics of every response, all [B].
  """
  log_ratio, desirable = _log_ratio(logps, ref_logps, desirable)
  anchor = jnp.maximum(jax.lax.stop_gradient(widened(kl)[0]), 0.0)
  sign = jnp.where(desirable, 1.0, -1.0)
  weight = jnp.where(desirable, desirable_weight, undesirable_weight)
  gain = sign * beta * (log_ratio - anchor)
  metrics = _metrics(beta * log_ratio, gain, sign)
  metrics['policy/kl'] = jnp.broadcast_to(anchor, log_ratio.shape)
  return weight * jax.nn.sigmoid(-gain), metrics


def apo_zero_unpaired_loss(
  logps: Array,
  ref_logps: Array,
  desirable: Array,
  *,
  beta: float = 0.1,
  desirable_weight: float = 1.0,
  undesirable_weight: float = 1.0,
) -> tuple[Array, Metrics]:
  """`kto_loss` with its reference point at zero, so that no KL is needed.

    L = λ_D σ(-β r)  of desirable,  λ_U σ(β r)  of other responses

  See D'Oosterlinck et al., eq. 7 (https://arxiv.org/abs/2408.06266), whose two
  halves these are.

  Args and returns: as for `kto_loss`.
  """
  return kto_loss(
    logps,
    ref_logps,
    desirable,
    jnp.zeros(()),
    beta=beta,
    desirable_weight=desirable_weight,
    undesirable_weight=undesirable_weight,
  )


def bco_loss(
  logps: Array,
  ref_logps: Array,
  desirable: Array,
  delta: Array,
  *,
  beta: float = 0.1,
) -> tuple[Array, Metrics]:
  """Binary classifier optimisation: is a response good or bad?

    L = -log σ(±(β r - δ)),  + for desirable responses

  with r = log π(y) - log π_ref(y) and δ the mean of the rewards β r, of this
  batch or running over all so far. No gradient flows to δ or `ref_logps`.

  See Jung et al., section 4 (https://arxiv.org/abs/2404.04656).

  Args:
    logps, ref_logps, desirable: as for `kto_loss`.
    delta: δ, a scalar or [B].
    beta: how strongly the policy is held to the reference.

  Returns:
    As `kto_loss`.
  """
  log_ratio, desirable = _log_ratio(logps, ref_logps, desirable)
  delta = jax.lax.stop_gradient(widened(delta)[0])
  sign = jnp.where(desirable, 1.0, -1.0)
  gain = sign * (beta * log_ratio - delta)
  return -jax.nn.log_sigmoid(gain), _metrics(beta * log_ratio, gain, sign)


def _log_ratio(logps, ref_logps, desirable):
  """The log-ratio, and `desirable` as bools."""
  _, logps, ref_logps = matched(desirable, logps=logps, ref_logps=ref_logps)
  desirable = as_bools('desirable', desirable)
  return logps - jax.lax.stop_gradient(ref_logps), desirable


def _metrics(rewards, gain, sign):
  """Signed so that more is better, whatever the share of good responses."""
  return {
    'rewards/reward': rewards,
    'rewards/margin': sign * rewards,
    'rewards/accuracy': 0.5 + 0.5 * jnp.sign(gain),
  }
