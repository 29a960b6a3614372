"""What goes before or after a loss on pairs, and composes with any of them."""

import jax
import jax.numpy as jnp

from alignax.logps import membership, sequence_lengths, sequence_logps
from alignax.numerics import as_bools, bounded_exp, matched
from alignax.types import Array


def wpo_weights(
  token_logps: Array,
  log_sum_sq_probs: Array,
  mask: Array,
  segments: Array | None = None,
  num_segments: int = 1,
) -> Array:
  """WPO: how much like the policy's own a response is.

    v = exp(mean_t (log p(y_t) - log Σ_v p(v)²))

  A loss on pairs is multiplied by v of both its responses, which makes
  off-policy pairs count as if they came from the policy. No gradient flows.
  log Σ p² is `logz` at half the temperature minus twice `logz`.

  See Zhou et al., eq. 2 (https://arxiv.org/abs/2406.11827).

  Args:
    token_logps: [..., T].
    log_sum_sq_probs: log Σ_v p(v)² at every token, [..., T].
    mask: [..., T].
    segments, num_segments: as for `alignax.sequence_logps`.

  Returns:
    weights [...], or [..., S] where segments are given; 1 for no tokens.
  """
  logps, expected = matched(
    token_logps=token_logps, log_sum_sq_probs=log_sum_sq_probs
  )
  args = (as_bools('mask', mask), segments, num_segments)
  total = sequence_logps(logps - expected, *args)
  mean = total / jnp.maximum(sequence_lengths(*args), 1)
  return jax.lax.stop_gradient(bounded_exp(mean))


def ld_logps(
  token_logps: Array,
  mask: Array,
  shared_lengths: Array,
  segments: Array | None = None,
  num_segments: int = 1,
  *,
  alpha: float = 0.5,
) -> Array:
  """LD-DPO: sequence log-probs in which length counts for less.

    S = Σ_{t ≤ n} log p(y_t) + α Σ_{t > n} log p(y_t)

  with n the length of the shorter response of the pair. Take it for policy and
  reference alike, in place of `alignax.sequence_logps`.

  See Liu et al., section 3 (https://arxiv.org/abs/2409.06411).

  Args:
    token_logps: [..., T].
    mask: [..., T].
    shared_lengths: n, int of the shape of the result.
    segments, num_segments: as for `alignax.sequence_logps`.
    alpha: 1 is no change; 0 ignores the longer response's surplus.

  Returns:
    [...], or [..., S] where segments are given.
  """
  _, token_logps = matched(mask, token_logps=token_logps)
  member = membership(as_bools('mask', mask), segments, num_segments)
  shared = jnp.asarray(shared_lengths)
  shared = shared[..., None] if segments is None else shared
  is_shared = jnp.cumsum(member, axis=-1) <= shared[..., None]
  weight = jnp.where(is_shared, 1.0, alpha)
  sums = jnp.sum(weight * token_logps[..., None, :], axis=-1, where=member)
  return sums[..., 0] if segments is None else sums
