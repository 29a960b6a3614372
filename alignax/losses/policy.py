"""Losses on sampled tokens, weighted by advantages.

Elementwise over arrays of any one shape; advantages may have axes of size 1
([B, 1] beside [B, T]). `weights` says how tokens are averaged: that choice is
all that tells GRPO, BNPO, Dr. GRPO, DAPO and LUSPO apart.
"""

import jax
import jax.numpy as jnp

from alignax.numerics import bounded_exp, choose, matched, widened
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
  is DAPO, eq. 10 (https://arxiv.org/abs/2503.14476); `dual_clip` is Ye et al.,
  eq. 5 (https://arxiv.org/abs/1912.09729).

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
  logps, old_logps = matched(logps, old_logps)
  advantages = _advantages(advantages, logps)
  log_ratio = logps - jax.lax.stop_gradient(old_logps)
  if ratio is None:
    ratio = bounded_exp(log_ratio)
  else:
    _, ratio = matched(logps, ratio)
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
  (logps,) = widened(logps)
  advantages = _advantages(advantages, logps)
  return -advantages * logps, {'policy/logps': logps}


def clipped_value_loss(
  values: Array,
  old_values: Array,
  returns: Array,
  *,
  clip: float = 0.2,
) -> tuple[Array, Metrics]:
  """Half the squared error to the returns, pessimistic about large moves.

    L = ½ max((v - R)², (clip(v, v_old - ε, v_old + ε) - R)²)

  No gradient flows to `old_values` or `returns`.

  See Huang et al., section 4 (https://arxiv.org/abs/2403.17031).

  Args:
    values: the value before every token, [...].
    old_values: the same when the tokens were sampled, [...].
    returns: what the values should have been, [...].
    clip: how far a value may move from its old one.

  Returns:
    The loss and the metrics of every token, all [...].
  """
  values, old_values, returns = matched(values, old_values, returns)
  old_values, returns = jax.lax.stop_gradient((old_values, returns))
  near = old_values + jnp.clip(values - old_values, -clip, clip)
  error, near_error = (values - returns) ** 2, (near - returns) ** 2
  metrics = {
    'value/error': error,
    'value/clipped': jnp.asarray(near_error > error, error.dtype),
  }
  return 0.5 * jnp.maximum(error, near_error), metrics


def kl_estimate(
  logps: Array,
  ref_logps: Array,
  *,
  kind: str = 'k3',
  old_logps: Array | None = None,
) -> Array:
  """KL(π ‖ π_ref), estimated at tokens sampled from π.

    k1 = -x     k2 = x² / 2     k3 = eˣ - x - 1     with   x = log π_ref - log π

  As values, inside a reward: k1 and k3 have no bias, and k3 is never negative.
  As losses, differentiated: the gradient of k2 is on average that of the KL,
  that of k3 is the gradient of KL(π_ref ‖ π), and that of k1 is zero.

  See Schulman (http://joschu.net/blog/kl-approx.html).

  Args:
    logps: log-probs of the sampled tokens under the policy, [...].
    ref_logps: the same under the reference; no gradient flows to it, [...].
    kind: 'k1', 'k2' or 'k3'.
    old_logps: under the policy that sampled, [...]. If given, the estimate is
      multiplied by the ratio π / π_old, which makes it unbiased off policy too.

  Returns:
    The estimate of every token, [...].
  """
  logps, ref_logps = matched(logps, ref_logps)
  x = jax.lax.stop_gradient(ref_logps) - logps
  estimate = choose(
    'kind of KL estimate',
    kind,
    {
      'k1': lambda: -x,
      'k2': lambda: 0.5 * x**2,
      'k3': lambda: _expm1_minus(x),
    },
  )()
  if old_logps is None:
    return estimate
  logps, old_logps = matched(logps, old_logps)
  return estimate * bounded_exp(logps - jax.lax.stop_gradient(old_logps))


def _expm1_minus(x):
  """eˣ - 1 - x; `expm1` is exact near 0, where this is nearly 0 / 0."""
  near = jnp.clip(x, -1.0, 1.0)
  return jnp.where(
    jnp.abs(x) < 1.0, jnp.expm1(near) - near, bounded_exp(x) - 1 - x
  )


def _advantages(advantages, like):
  (advantages,) = widened(advantages)
  if advantages.ndim != like.ndim or any(
    a not in (1, b) for a, b in zip(advantages.shape, like.shape)
  ):
    raise ValueError(
      f'advantages have shape {advantages.shape}, log-probs {like.shape}: give '
      'one for every token, or axes of size 1 (advantages[:, None]).'
    )
  return jax.lax.stop_gradient(advantages)


def _ratio_metrics(log_ratio, ratio, clipped):
  return {
    'policy/ratio': ratio,
    'policy/approx_kl': _expm1_minus(log_ratio),
    'policy/clipped': jnp.asarray(clipped, ratio.dtype),
  }
