"""A decoder of the Llama, Qwen or Gemma family, in Flax Linen.

One module for all of them: `Config` says what differs. Layers are scanned, so
that compile time does not grow with depth; parameters of layers carry a
leading axis [L]. The KV cache is an argument and a result, never hidden state.

Einsum letters: B batch, T time, D width, H heads, K key heads, G = H / K.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from alignax.models import attention, rope
from alignax.models.cache import Cache, Context, claim_slots, visible, write
from alignax.models.config import Config
from alignax.models.layers import Embed, Linear, Mlp, RMSNorm, shard_rows
from alignax.types import Array

POLICIES = {
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'block': None,
}


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
      cache = claim_slots(cache, segments, positions)
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
    write(cache, new, index, slot)
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
    visible(context, layer['window']),
    **kw,
  )
  return y, caches


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
