"""Causal attention over packed rows, a block of queries at a time.

Einsum letters: B batch, T queries, S keys, K key heads, G queries a key head,
D head dimension.
"""

import functools

import jax
import jax.numpy as jnp

from alignax.types import Array

NEGATIVE = -1e30  # Finite, so that a row which sees nothing stays finite.


def causal_attention(
  queries: Array,
  keys: Array,
  values: Array,
  segments: Array,
  window: Array,
  *,
  scale: float,
  softcap: float | None = None,
  recompute: bool = True,
  block: int = 128,
) -> Array:
  """Every token attends to earlier ones of its own document.

  A block of queries is multiplied only with the keys up to its own end, which
  halves the work; its logits are recomputed in the backward pass, so that
  [T, T] is never kept.

  Args:
    queries: [B, T, K, G, D], rotated.
    keys: [B, T, K, D], rotated.
    values: [B, T, K, D].
    segments: [B, T], 0 is padding.
    window: how many tokens back one sees, itself included; a number, so that
      layers with different windows share one scanned body.
    scale: factor of the logits.
    softcap: bounds the logits by c tanh(logits / c).
    recompute: whether the backward pass recomputes the attention logits.
    block: least number of queries in a block; long rows use at most 16 blocks.

  Returns:
    [B, T, K, G, D].
  """
  length = queries.shape[1]
  block = max(block, -(-length // 16))
  attend = functools.partial(_attend, scale=scale, softcap=softcap)
  if recompute:
    attend = jax.checkpoint(attend)
  outputs = []
  for start in range(0, length, block):
    end = min(start + block, length)
    q_index, k_index = jnp.arange(start, end)[:, None], jnp.arange(end)
    near = (k_index <= q_index) & (q_index - k_index < window)
    same = segments[:, start:end, None] == segments[:, None, :end]
    visible = near & same
    outputs.append(
      attend(queries[:, start:end], keys[:, :end], values[:, :end], visible)
    )
  return jnp.concatenate(outputs, axis=1)


def cached_attention(
  queries: Array,
  keys: Array,
  values: Array,
  visible: Array,
  *,
  scale: float,
  softcap: float | None = None,
) -> Array:
  """Attends to a cache. queries [B, T, K, G, D], keys [B, S, K, D],
  visible [B, T, S] -> [B, T, K, G, D]."""
  return _attend(queries, keys, values, visible, scale=scale, softcap=softcap)


def _attend(queries, keys, values, visible, *, scale, softcap):
  logits = jnp.einsum(
    'btkgd,bskd->bkgts',
    queries,
    keys,
    preferred_element_type=jnp.float32,
  )
  logits *= scale
  if softcap is not None:
    logits = softcap * jnp.tanh(logits / softcap)
  logits = jnp.where(visible[:, None, None], logits, NEGATIVE)
  probs = jax.nn.softmax(logits, axis=-1).astype(values.dtype)
  return jnp.einsum('bkgts,bskd->btkgd', probs, values)
