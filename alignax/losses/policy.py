"""Losses of policies: sampled tokens, weighted by advantages.

Elementwise over arrays of any one shape; advantages may have axes of size 1
([B, 1] beside [B, T]). `weights` says how tokens are averaged: that choice is
all that tells GRPO, BNPO, Dr. GRPO, DAPO and LUSPO apart.
"""

import jax
import jax.numpy as jnp

from alignax.logps import document_sums
from alignax.losses.divergences import expm1_minus
from alignax.numerics import as_bools, bounded_exp, matched, widened
from alignax.types import Array, Metrics


def clipped_policy_loss(
  logps: Array,
  old_logps: Array,
  advantages: Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  dual_clip: float | None = None,
  ratio: Array | None = None,
) -> tuple[Array, Metrics]:
  """The clipped surrogate of PPO and GRPO.

    L = -min(ρ A, clip(ρ, 1 - ε_low, 1 + ε_high) A)   with   ρ = π(a) / π_old(a)

  No gradient flows to `old_logps` or `advantages`. Where the clip is active the
  gradient is zero: the token has moved far enough.

  See Schulman et al., eq. 7 (https://arxiv.org/abs/1707.06347); ε_high > ε_low
  is DAPO, eq. 10 (https://arxiv.org/abs/2503.14476); `dual_clip` is Ye et
  al. (https://arxiv.org/abs/1912.09729).

  Args:
    logps: log-probs of the sampled tokens under the policy, [...].
    old_logps: the same under the policy that sampled them, [...].
    advantages: [...], or of size 1 along some axes.
    clip_low: how far the ratio may fall below 1.
    clip_high: how far the ratio may rise above 1.
    dual_clip: bound on the ratio everywhere, also where A < 0 and the ratio
      rises, which the clip alone leaves unbounded; above 1 + clip_high.
    ratio: taken in place of exp(logps - old_logps), [...]: `sequence_ratio` for
      GSPO, `geometric_mean_ratio` for GMPO.

  Returns:
    The loss and the metrics of every token, all [...].
  """
  logps, old_logps = matched(logps=logps, old_logps=old_logps)
  advantages = broadcast_scores('advantages', advantages, logps)
  log_ratio = logps - jax.lax.stop_gradient(old_logps)
  if ratio is None:
    ratio = bounded_exp(log_ratio)
  else:
    _, ratio = matched(logps, ratio=ratio)
  free = ratio if dual_clip is None else jnp.minimum(ratio, dual_clip)
  near = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
  loss = jnp.maximum(-advantages * free, -advantages * near)
  return loss, _ratio_metrics(log_ratio, ratio, loss != -advantages * ratio)


def policy_gradient_loss(
  logps: Array, advantages: Array
) -> tuple[Array, Metrics]:
  """REINFORCE: the gradient of expected reward at the sampled tokens.

    L = -A log π(a)

  Its value means nothing; only its gradient does, and only at tokens that the
  current policy sampled. No gradient flows to `advantages`.

  See Williams 1992, section 4 (https://doi.org/10.1007/BF00992696).

  Args: logps [...]; advantages [...], or of size 1 along some axes.
  Returns: the loss and metrics of every token, all [...].
  """
  (logps,) = matched(logps=logps)
  advantages = broadcast_scores('advantages', advantages, logps)
  return -advantages * logps, {'policy/logps': logps}


def cispo_loss(
  logps: Array,
  old_logps: Array,
  advantages: Array,
  *,
  cap: float = 5.0,
) -> tuple[Array, Metrics]:
  """CISPO: the weight is clipped, the gradient is not.

    L = -sg(min(ρ, cap)) A log π(a)

  Unlike in `clipped_policy_loss`, tokens far from the old policy (the rare ones
  at which a chain of thought turns) still learn.

  See MiniMax, eq. 4 and 5 (https://arxiv.org/abs/2506.13585).

  Args:
    logps, old_logps, advantages: as for `clipped_policy_loss`.
    cap: the largest weight, not its distance from 1.

  Returns:
    The loss and the metrics of every token, all [...].
  """
  logps, old_logps = matched(logps=logps, old_logps=old_logps)
  advantages = broadcast_scores('advantages', advantages, logps)
  log_ratio = jax.lax.stop_gradient(logps - old_logps)
  ratio = bounded_exp(log_ratio)
  loss = -jnp.minimum(ratio, cap) * advantages * logps
  return loss, _ratio_metrics(log_ratio, ratio, ratio > cap)


def sapo_loss(
  logps: Array,
  old_logps: Array,
  advantages: Array,
  *,
  tau_positive: float = 1.0,
  tau_negative: float = 1.05,
) -> tuple[Array, Metrics]:
  """SAPO: a soft gate in place of the clip.

    L = -(4 / τ) σ(τ (ρ - 1)) A

  with τ by the sign of A. At ρ = 1 its gradient is that of REINFORCE, and it
  fades to both sides.

  See Gao et al. (https://arxiv.org/abs/2511.20347): the "soft gate" f(ρ).

  Args:
    logps, old_logps, advantages: as for `clipped_policy_loss`.
    tau_positive: sharpness of the gate where A > 0.
    tau_negative: sharpness elsewhere.

  Returns:
    The loss and the metrics of every token, all [...]; 'policy/clipped' is the
    share of the gradient that the gate takes away.
  """
  logps, old_logps = matched(logps=logps, old_logps=old_logps)
  advantages = broadcast_scores('advantages', advantages, logps)
  log_ratio = logps - jax.lax.stop_gradient(old_logps)
  ratio = bounded_exp(log_ratio)
  tau = jnp.where(advantages > 0, tau_positive, tau_negative)
  gate = jax.nn.sigmoid(tau * (ratio - 1))
  metrics = _ratio_metrics(log_ratio, ratio, 1 - 4 * gate * (1 - gate))
  return -(4 / tau) * gate * advantages, metrics


def vespo_loss(
  logps: Array,
  old_logps: Array,
  advantages: Array,
  mask: Array,
  segments: Array | None = None,
  *,
  k_positive: float = 2.0,
  lam_positive: float = 3.0,
  k_negative: float = 3.0,
  lam_negative: float = 2.0,
) -> tuple[Array, Metrics]:
  """VESPO: a smooth weight of whole sequences.

    L = -sg(w^k e^{λ (1 - w)}) A log π(a)   with   w = π(y) / π_old(y)

  a product over the tokens of the response; k and λ by the sign of A. The
  weight is 1 at w = 1 and fades to both sides.

  See Shen et al. (https://arxiv.org/abs/2602.10693).

  Args:
    logps, old_logps: [..., T].
    advantages: [..., T], or of size 1 along some axes ([B, 1]).
    mask: the tokens of the responses, [..., T].
    segments: int [..., T]; where given, every document is a response.
    k_positive, lam_positive: k and λ where A ≥ 0.
    k_negative, lam_negative: k and λ elsewhere.

  Returns:
    The loss and the metrics of every token, all [..., T].
  """
  _, logps, old_logps = matched(mask, logps=logps, old_logps=old_logps)
  advantages = broadcast_scores('advantages', advantages, logps)
  log_ratio = jax.lax.stop_gradient(logps - old_logps)
  mask = as_bools('mask', mask)
  log_w = document_sums(jnp.where(mask, log_ratio, 0.0), segments)
  is_good = advantages >= 0
  k = jnp.where(is_good, k_positive, k_negative)
  lam = jnp.where(is_good, lam_positive, lam_negative)
  weight = bounded_exp(k * log_w + lam * (1 - bounded_exp(log_w)))
  metrics = _ratio_metrics(log_ratio, bounded_exp(log_ratio), 0 * log_ratio)
  del metrics['policy/clipped']
  metrics['policy/weight'] = jnp.broadcast_to(weight, logps.shape)
  return -weight * advantages * logps, metrics


def broadcast_scores(name: str, scores: Array, like: Array) -> Array:
  """Scores that have, or may be stretched to, the shape of `like`."""
  (scores,) = widened(scores)
  if scores.ndim != like.ndim or any(
    a not in (1, b) for a, b in zip(scores.shape, like.shape)
  ):
    raise ValueError(
      f'{name} have shape {scores.shape}, log-probs {like.shape}: give one for '
      f'every log-prob, or axes of size 1 (as {name}[:, None]).'
    )
  return jax.lax.stop_gradient(scores)


def _ratio_metrics(log_ratio, ratio, clipped):
  return {
    'policy/ratio': ratio,
    'policy/approx_kl': expm1_minus(log_ratio),
    'policy/clipped': jnp.asarray(clipped, ratio.dtype),
  }
