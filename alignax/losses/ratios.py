"""Ratios of policies, between that of a token and that of a sequence."""

import jax
import jax.numpy as jnp

from alignax.logps import document_sums
from alignax.losses.policy import broadcast_scores
from alignax.numerics import as_bools, bounded_exp, choose, matched
from alignax.types import Array


def sequence_ratio(
  logps: Array, old_logps: Array, mask: Array, segments: Array | None = None
) -> Array:
  """GSPO: one ratio for a sequence, the geometric mean of its tokens'.

    s = exp(mean_t (log π(y_t) - log π_old(y_t)))

  For `clipped_policy_loss(..., ratio=...)`, with clips of about 3e-4: a mean
  moves far less than a token.

  See Zheng et al., eq. 7 (https://arxiv.org/abs/2507.18071).

  Args:
    logps, old_logps, mask: [..., T].
    segments: int [..., T]; where given, every document is a sequence.

  Returns:
    [..., T]: every token holds the ratio of its sequence; 1 off the mask.
  """
  mask = as_bools('mask', mask)
  x = _masked_log_ratio(mask, logps=logps, old_logps=old_logps)
  return _mean_ratio(x, mask, segments)


def geometric_mean_ratio(
  logps: Array,
  old_logps: Array,
  advantages: Array,
  mask: Array,
  segments: Array | None = None,
  *,
  clip_low: float = 0.4,
  clip_high: float = 0.4,
) -> Array:
  """GMPO: `sequence_ratio` of token log-ratios that are clipped on one side.

    s = exp(mean_t c_t)   with   c = min(x, ε_high) if A > 0
                                 c = max(x, -ε_low) else

  and x = log π - log π_old. The loss is -A s: `clipped_policy_loss(...,
  ratio=s, clip_low=inf, clip_high=inf)`.

  See Zhao et al., section 3 (https://arxiv.org/abs/2507.20673).

  Args:
    logps, old_logps, mask: [..., T].
    advantages: [..., T], or of size 1 along some axes ([B, 1]).
    segments: int [..., T]; where given, every document is a sequence.
    clip_low, clip_high: bounds of the log-ratio.

  Returns:
    [..., T]: every token holds the ratio of its sequence; 1 off the mask.
  """
  mask = as_bools('mask', mask)
  x = _masked_log_ratio(mask, logps=logps, old_logps=old_logps)
  advantages = broadcast_scores('advantages', advantages, x)
  clipped = jnp.where(
    advantages > 0, jnp.minimum(x, clip_high), jnp.maximum(x, -clip_low)
  )
  return _mean_ratio(jnp.where(mask, clipped, 0.0), mask, segments)


def truncated_importance_weights(
  old_logps: Array,
  sampling_logps: Array,
  mask: Array,
  segments: Array | None = None,
  *,
  low: float = 0.0,
  high: float = 2.0,
  level: str = 'token',
  outside: str = 'truncate',
) -> Array:
  """Corrects for sampling with other numerics than one trains with.

    w = π_old / π_sampling

  to multiply a policy loss with. Where sampler and trainer share their program,
  as here, it is 1. No gradient flows.

  See Yao et al. (https://fengyao.notion.site/off-policy-rl): "truncated
  importance sampling" (TIS).

  Args:
    old_logps: log-probs of the samples by the training program, [..., T].
    sampling_logps: as the sampler reported them, [..., T].
    mask: [..., T].
    segments: int [..., T]; where given, every document is a sequence.
    low, high: bounds of the weight.
    level: 'token', or 'sequence': the product over its tokens.
    outside: what becomes of weights out of bounds: 'truncate' puts them on the
      bound, 'mask' puts them to 0.

  Returns:
    [..., T]; 1 off the mask.
  """
  mask = as_bools('mask', mask)
  x = jax.lax.stop_gradient(
    _masked_log_ratio(mask, old_logps=old_logps, sampling_logps=sampling_logps)
  )
  levels = {'token': lambda: x, 'sequence': lambda: document_sums(x, segments)}
  ratio = bounded_exp(choose('level', level, levels)())
  is_out = (ratio < low) | (ratio > high)
  outsides = {
    'truncate': lambda: jnp.clip(ratio, low, high),
    'mask': lambda: jnp.where(is_out, 0.0, ratio),
  }
  return jnp.where(mask, choose('outside', outside, outsides)(), 1.0)


def _masked_log_ratio(mask, **both):
  """log π - log π_old, 0 off the mask, where anything may stand."""
  _, logps, old_logps = matched(mask, **both)
  return jnp.where(mask, logps - jax.lax.stop_gradient(old_logps), 0.0)


def _mean_ratio(log_ratio, mask, segments):
  count = document_sums(jnp.asarray(mask, log_ratio.dtype), segments)
  mean = document_sums(log_ratio, segments) / jnp.maximum(count, 1)
  return jnp.where(mask, bounded_exp(mean), 1.0)
