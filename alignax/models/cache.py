"""The KV cache of a decoder: what it holds, is written to, and shows.

It is an argument and a result of the transformer, never hidden state.
"""

import flax.struct
import jax
import jax.numpy as jnp

from alignax.types import Array


class Cache(flax.struct.PyTreeNode):
  """Keys and values of what was read so far; slots fill from the left.

  Attributes:
    keys: rotated, [L, B, S, K, head_dim]; or L arrays [1, B, S, K, head_dim].
    values: as `keys`.
    segments: of every slot, 0 where nothing is to be seen, [B, S].
    slot_positions: of the token in every slot, [B, S].
    positions: next position of every row, [B].
    length: number of slots in use, the same for all rows, [].
  """

  keys: Array | tuple[Array, ...]
  values: Array | tuple[Array, ...]
  segments: Array
  slot_positions: Array
  positions: Array
  length: Array


class Context(flax.struct.PyTreeNode):
  """What every layer reads and none changes."""

  segments: Array  # [B, T]
  ropes: tuple[tuple[Array, Array], ...]  # Global, then local: cos and sin.
  positions: Array  # [B, T]
  cache: Cache | None = None  # Where the new tokens are claimed already.


def claim_slots(cache: Cache, segments: Array, positions: Array) -> Cache:
  """Marks the slots that the new tokens take, and where rows go on."""
  at = (jnp.zeros_like(cache.length), cache.length)
  put = lambda old, new: jax.lax.dynamic_update_slice(
    old, new.astype(old.dtype), at
  )
  last = jnp.max(jnp.where(segments > 0, positions, -1), axis=1)
  return cache.replace(
    segments=put(cache.segments, segments),
    slot_positions=put(cache.slot_positions, positions),
    # A row of padding goes on where it was.
    positions=jnp.maximum(cache.positions, last + 1),
  )


def write(cache: Array, new: Array, layer: Array, slot: Array) -> Array:
  """Puts [B, T, K, D] into [L, B, S, K, D] at a layer and slot, in place."""
  zero = jnp.zeros_like(slot)
  at = (layer.astype(slot.dtype), zero, slot, zero, zero)
  return jax.lax.dynamic_update_slice(cache, new[None].astype(cache.dtype), at)


def visible(context: Context, window: Array) -> Array:
  """Which slots each new token sees. -> [B, T, S].

  By positions, not by slots: padding between the parts of a row is no
  distance.
  """
  cache, positions = context.cache, context.positions[:, :, None]
  distance = positions - cache.slot_positions[:, None, :]
  same = context.segments[:, :, None] == cache.segments[:, None, :]
  return same & (distance >= 0) & (distance < window)
