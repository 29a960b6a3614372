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
  """Entropy of the softmax, in nats. [..., V] -> [...]."""
  (logits,) = widened(logits)
  logps = jax.nn.log_softmax(logits, axis=-1)
  return -jnp.sum(jnp.exp(logps) * logps, axis=-1)


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
  mask = jnp.asarray(mask, bool)
  if segments is None:
    return jnp.sum(token_logps, axis=-1, where=mask)
  member = _membership(mask, segments, num_segments)
  return jnp.sum(token_logps[..., None, :], axis=-1, where=member)


def sequence_lengths(
  mask: Array, segments: Array | None = None, num_segments: int = 1
) -> Array:
  """Number of tokens in `mask`, shaped as by `sequence_logps`. int32."""
  mask = jnp.asarray(mask, bool)
  if segments is None:
    return jnp.sum(mask, axis=-1, dtype=jnp.int32)
  member = _membership(mask, segments, num_segments)
  return jnp.sum(member, axis=-1, dtype=jnp.int32)


def _membership(mask, segments, num_segments):
  """Which masked tokens belong to which document, bool [..., S, T]."""
  chex.assert_equal_shape([mask, segments])
  documents = jnp.arange(1, num_segments + 1)[:, None]
  return mask[..., None, :] & (segments[..., None, :] == documents)
