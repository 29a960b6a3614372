"""Log-probs of given tokens, from logits or from hidden states."""

import chex
import jax
import jax.numpy as jnp

from alignax.fused_head import HeadStats as HeadStats
from alignax.fused_head import fused_logps as fused_logps
from alignax.fused_head import head_stats as head_stats
from alignax.numerics import widened
from alignax.types import Array


def token_logps(logits: Array, targets: Array) -> Array:
  """log p(target), float32. logits [..., V], targets int [...] -> [...]."""
  logits, targets = _logits_and_targets(logits, targets)
  picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return picked - jax.nn.logsumexp(logits, axis=-1)


def logit_stats(logits: Array, targets: Array) -> HeadStats:
  """Statistics of a softmax. logits [..., V], targets int [...]."""
  logits, targets = _logits_and_targets(logits, targets)
  logz = jax.nn.logsumexp(logits, axis=-1)
  mean_logps = jnp.mean(logits, axis=-1) - logz
  return HeadStats(
    token_logps(logits, targets), logz, mean_logps, entropy(logits)
  )


def _logits_and_targets(logits, targets):
  targets = jnp.asarray(targets)
  chex.assert_rank(logits, targets.ndim + 1)
  chex.assert_equal_shape_prefix([logits, targets], targets.ndim)
  return widened(logits)[0], targets


def entropy(logits: Array) -> Array:
  """Entropy of the softmax, in nats. [..., V] -> [...].

    H = -Σ_v p(v) log p(v)   with   0 log 0 = 0

  See Shannon (https://doi.org/10.1002/j.1538-7305.1948.tb01338.x), section 6.
  """
  (logits,) = widened(logits)
  logps = jax.nn.log_softmax(logits, axis=-1)
  # Sampling rules out tokens by -inf, which times 0 would be NaN.
  surprise = jnp.where(jnp.isneginf(logps), 0.0, -logps)
  return jnp.sum(jnp.exp(logps) * surprise, axis=-1)


def sequence_logps(
  token_logps: Array,
  mask: Array,
  segments: Array | None = None,
  num_segments: int = 1,
) -> Array:
  """Sum over the tokens in `mask`, of every sequence or packed document.

  Args:
    token_logps: [..., T]; what is off the mask does not matter.
    mask: [..., T].
    segments: int [..., T]; where given, documents 1 to S of each row are summed
      apart.
    num_segments: S.

  Returns:
    [...], or [..., S] where segments are given; 0 for documents without tokens.
  """
  chex.assert_equal_shape([token_logps, mask])
  (token_logps,) = widened(token_logps)
  member = membership(mask, segments, num_segments)
  sums = jnp.sum(token_logps[..., None, :], axis=-1, where=member)
  return sums[..., 0] if segments is None else sums


def sequence_lengths(
  mask: Array, segments: Array | None = None, num_segments: int = 1
) -> Array:
  """Number of tokens in `mask`, shaped as by `sequence_logps`. int32."""
  member = membership(mask, segments, num_segments)
  lengths = jnp.sum(member, axis=-1, dtype=jnp.int32)
  return lengths[..., 0] if segments is None else lengths


def document_sums(x: Array, segments: Array | None = None) -> Array:
  """For every token, the sum over its sequence or packed document.

  Args: x [..., T]; segments, int [..., T], where rows are packed.
  Returns: [..., T] where segments are given, else [..., 1].
  """
  if segments is None:
    return jnp.sum(x, axis=-1, keepdims=True)
  chex.assert_equal_shape([x, segments])

  def one_row(x, segments):
    sums = jax.ops.segment_sum(x, segments, x.shape[-1] + 1)
    return sums[segments]

  return jnp.vectorize(one_row, signature='(t),(t)->(t)')(x, segments)


def membership(mask: Array, segments: Array | None, num_segments: int) -> Array:
  """Which tokens belong to which document, bool [..., S, T] (else S = 1)."""
  mask = jnp.asarray(mask, bool)[..., None, :]
  if segments is None:
    return mask
  segments = jnp.asarray(segments)[..., None, :]
  chex.assert_equal_shape([mask, segments])
  return mask & (segments == jnp.arange(1, num_segments + 1)[:, None])
