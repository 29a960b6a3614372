"""A decoder of the Llama, Qwen or Gemma family, in Flax Linen.

One module for all of them: `Config` says what differs. Layers are scanned, so
that compile time does not grow with depth; parameters of layers carry a
leading axis [L]. The KV cache is an argument and a result, never hidden state.

Einsum letters: B batch, T time, D width, H heads, K key heads, G = H / K.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from alignax import lora, quantize
from alignax.models import attention, rope
from alignax.models.config import Config
from alignax.models.contract import contract
from alignax.types import Array

ACTIVATIONS = {
  'silu': jax.nn.silu,
  'gelu_tanh': lambda x: jax.nn.gelu(x, approximate=True),
}
POLICIES = {
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'block': None,
}
# Only shapes are taken from the module; `init.py` draws the values.
UNSET = nn.initializers.zeros


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


class RMSNorm(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, x: Array) -> Array:
    config = self.config
    scale = self.param('scale', UNSET, (x.shape[-1],))
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    normed = x32 * jax.lax.rsqrt(mean_square + config.norm_eps)
    scaled = normed * (config.norm_offset + scale.astype(jnp.float32))
    return scaled.astype(x.dtype)


class Linear(nn.Module):
  """Contracts the last `len(inputs)` axes of x with a kernel.

  Its parameters may be a kernel, or what is stored of one (`quantize`), and
  the factors of an adapter beside it (`lora`).
  """

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  dtype: Any
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    axes, shape = len(self.inputs), (*self.inputs, *self.outputs)
    stored = given(self, quantize.KINDS)
    if not stored:
      stored = {'kernel': self.param('kernel', UNSET, shape)}
    y = _times_stored(x, stored, shape, axes)
    adapter = given(self, lora.LEAVES)
    if adapter:
      low = contract(x, adapter['lora_a'].astype(self.dtype), axes)
      y += contract(low, adapter['lora_b'].astype(self.dtype), 1)
    if 'lora_gain' in adapter:
      y *= adapter['lora_gain'].astype(self.dtype)
    if self.use_bias:
      bias = self.param('bias', UNSET, self.outputs)
      y += bias.astype(self.dtype)
    return y


def given(module: nn.Module, names) -> dict[str, Any]:
  """Those of a module's parameters that it need not have."""
  return {
    name: module.get_variable('params', name)
    for name in names
    if module.has_variable('params', name)
  }


def _times_stored(x: Array, stored, shape, axes: int) -> Array:
  """x times a kernel that may be stored in fewer bits than it is used in."""
  times = lambda x, stored: contract(
    x, quantize.dequantise(stored, shape, x.dtype), axes
  )
  kernel = stored.get('kernel')
  if kernel is not None and kernel.dtype.itemsize >= x.dtype.itemsize:
    return times(x, stored)
  # The backward pass makes the kernel again: kept for it, the kernels of all
  # layers would be the copy of the base that storing it small is to avoid.
  return jax.checkpoint(times, prevent_cse=False)(x, stored)


class Attention(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, x, layer, context: Context, caches):
    """x [B, T, D] -> [B, T, D] and the caches of keys and values."""
    c = self.config
    project = lambda n, name: Linear(
      (c.width,), (n, c.head_dim), x.dtype, use_bias=c.qkv_bias, name=name
    )(x)
    queries = project(c.num_heads, 'q')
    keys, values = project(c.num_kv_heads, 'k'), project(c.num_kv_heads, 'v')
    if c.qk_norm:
      queries = RMSNorm(c, name='q_norm')(queries)
      keys = RMSNorm(c, name='k_norm')(keys)
    cos, sin = _select_rope(context.ropes, layer['is_local'])
    queries, keys = (rope.rotate(h, cos, sin) for h in (queries, keys))
    groups = c.num_heads // c.num_kv_heads
    queries = queries.reshape(*x.shape[:2], c.num_kv_heads, groups, c.head_dim)
    y, caches = _attend(c, queries, (keys, values), layer, context, caches)
    y = y.reshape(*x.shape[:2], c.num_heads, c.head_dim)
    out = Linear((c.num_heads, c.head_dim), (c.width,), x.dtype, name='out')
    return out(y), caches


class Mlp(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, x: Array) -> Array:
    config = self.config
    width, inner = (config.width,), (config.mlp_width,)
    gate = Linear(width, inner, x.dtype, name='gate')(x)
    up = Linear(width, inner, x.dtype, name='up')(x)
    activated = ACTIVATIONS[config.activation](gate) * up
    return Linear(inner, width, x.dtype, name='down')(activated)


class Block(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, carry, layer, context: Context):
    config = self.config
    x, caches = carry
    norm = lambda name, y: RMSNorm(config, name=name)(y)
    post = norm if config.post_norms else lambda name, y: y
    y, caches = Attention(config, name='attn')(
      norm('attn_norm', x), layer, context, caches
    )
    x = shard_rows(x + post('attn_post_norm', y))
    y = Mlp(config, name='mlp')(norm('mlp_norm', x))
    x = shard_rows(x + post('mlp_post_norm', y))
    return (x, caches), None


class Transformer(nn.Module):
  """Tokens to hidden states after the last norm."""

  config: Config

  @nn.compact
  def __call__(
    self,
    inputs: Array,
    segments: Array,
    positions: Array,
    cache: Cache | None = None,
    noise: Array | None = None,
  ) -> tuple[Array, Cache | None]:
    """inputs, segments, positions [B, T] -> hidden [B, T, D] and the cache.

    `noise` [B, T, D], if given, is added to the embeddings (NEFTune).
    """
    config = self.config
    x = Embed(config, name='embed')(inputs)
    x = shard_rows(x if noise is None else x + noise.astype(x.dtype))
    if cache is not None:
      cache = _claim_slots(cache, segments, positions)
    context = _make_context(config, segments, positions, cache)
    caches = None if cache is None else (cache.keys, cache.values)
    if cache is not None and isinstance(cache.keys, tuple):
      x, caches = _layer_by_layer(config, x, context, caches)
    else:
      # Without a cache there is a backward pass, which remat is for.
      block = _scanned_block(config, remat=cache is None)
      (x, caches), _ = block(config, name='layers')(
        (x, caches), _layer_settings(config), context
      )
    if cache is not None:
      length = cache.length + inputs.shape[1]
      cache = cache.replace(keys=caches[0], values=caches[1], length=length)
    return RMSNorm(config, name='norm')(x), cache


class Embed(nn.Module):
  config: Config

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    config = self.config
    table = self.param('embedding', UNSET, (config.vocab_size, config.width))
    look_up = lambda rows: jnp.take(rows, inputs, axis=0).astype(config.dtype)
    x = look_up(gather_width(table))
    adapter = given(self, lora.LEAVES)
    if adapter:
      x += look_up(adapter['lora_a']) @ adapter['lora_b'].astype(x.dtype)
    # The factor is rounded to the compute dtype, as Gemma was trained.
    return x * jnp.asarray(config.embed_scale, x.dtype)


def gather_width(table: Array) -> Array:
  """An embedding split by tokens alone, under a mesh.

  Looking tokens up in a table that is split both ways, XLA would make every
  row of the batch whole on every device first.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if 'tensor' not in mesh.axis_names or mesh.shape['tensor'] == 1:
    return table
  return jax.lax.with_sharding_constraint(table, P('tensor', None))


def shard_rows(x: Array) -> Array:
  """Keeps rows on the device of their batch entry, under a mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(name for name in ('data', 'fsdp') if name in mesh.axis_names)
  if not axes or x.shape[0] % int(np.prod([mesh.shape[a] for a in axes])):
    return x
  return jax.lax.with_sharding_constraint(x, P(axes))


def _scanned_block(config: Config, *, remat: bool):
  """All layers as one, whose body is compiled once."""
  block = Block
  if remat and config.remat in POLICIES:
    policy = POLICIES[config.remat]
    block = nn.remat(Block, policy=policy, prevent_cse=False)
  return nn.scan(
    block,
    variable_axes={'params': 0},
    split_rngs={'params': True},
    in_axes=(0, nn.broadcast),
    length=config.depth,
  )


def _layer_by_layer(config: Config, x: Array, context: Context, caches):
  """As the scan, where every layer has its own parameters and cache."""
  caches = list(zip(*caches))
  for i in range(config.depth):
    layer = {k: jnp.asarray(v[i]) for k, v in _layer_settings(config).items()}
    layer['index'] = jnp.zeros_like(layer['index'])  # A cache of one layer.
    block = Block(config, name=f'layers_{i}')
    (x, caches[i]), _ = block((x, caches[i]), layer, context)
  return x, tuple(zip(*caches))


def _layer_settings(config: Config) -> dict[str, np.ndarray]:
  """What differs from layer to layer, [L] each."""
  return {
    'index': np.arange(config.depth),
    'window': np.array(config.windows, np.int32),
    'is_local': np.array(config.local_layers or [False] * config.depth),
  }


def _attend(config, queries, keys_and_values, layer, context, caches):
  """Attention over the row itself, or over the cache after writing to it."""
  scale = config.query_scale or config.head_dim**-0.5
  kw = dict(scale=scale, softcap=config.attn_softcap)
  if caches is None:
    y = attention.causal_attention(
      queries,
      *keys_and_values,
      context.segments,
      layer['window'],
      recompute=config.remat == 'attention',
      **kw,
    )
    return y, None
  index, slot = layer['index'], context.cache.length
  caches = tuple(
    _write(cache, new, index, slot)
    for cache, new in zip(caches, keys_and_values)
  )
  keys, values = (
    jax.lax.dynamic_index_in_dim(cache, index, keepdims=False)
    for cache in caches
  )
  y = attention.cached_attention(
    queries,
    keys.astype(queries.dtype),
    values.astype(queries.dtype),
    _visible(context, layer['window']),
    **kw,
  )
  return y, caches


def _claim_slots(cache: Cache, segments: Array, positions: Array) -> Cache:
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


def _make_context(config, segments, positions, cache) -> Context:
  thetas = [(config.rope_theta, config.rope_scaling)]
  if config.local_rope_theta is not None:
    thetas.append((config.local_rope_theta, None))
  ropes = tuple(
    rope.tables(positions, rope.frequencies(config.head_dim, *theta))
    for theta in thetas
  )
  if cache is not None:  # What layers change travels apart from it.
    cache = cache.replace(keys=None, values=None)
  return Context(segments, ropes, positions, cache)


def _select_rope(ropes, is_local):
  if len(ropes) == 1:
    return ropes[0]
  choose = lambda whole, local: jnp.where(is_local, local, whole)
  return jax.tree.map(choose, *ropes)


def _write(cache: Array, new: Array, layer: Array, slot: Array) -> Array:
  """Puts [B, T, K, D] into [L, B, S, K, D] at a layer and slot, in place."""
  zero = jnp.zeros_like(slot)
  at = (layer.astype(slot.dtype), zero, slot, zero, zero)
  return jax.lax.dynamic_update_slice(cache, new[None].astype(cache.dtype), at)


def _visible(context: Context, window: Array) -> Array:
  """Which slots each new token sees. -> [B, T, S].

  By positions, not by slots: padding between the parts of a row is no
  distance.
  """
  cache, positions = context.cache, context.positions[:, :, None]
  distance = positions - cache.slot_positions[:, None, :]
  same = context.segments[:, :, None] == cache.segments[:, None, :]
  return same & (distance >= 0) & (distance < window)
