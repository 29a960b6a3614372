"""A model as pure functions of its parameters.

Algorithms ask for log-probs, values and scores of a batch; none of these ever
holds [B, T, V]. Parameters are a plain pytree:

  embed/embedding [V, D]    layers/... [L, ...]    norm/scale [D]
  lm_head/embedding [V, D]  unless embeddings are tied
  value_head/{kernel [D], bias []}  in value and reward models
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from alignax import fused_head, quantize
from alignax.models.cache import Cache
from alignax.models.config import Config
from alignax.models.init import random_params
from alignax.models.transformer import Transformer
from alignax.types import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Model:
  """Pure functions over `params`, for a decoder described by `config`.

  Batches are as `alignax.data` makes them: `inputs`, and where they matter
  `segments`, `positions`, `targets` and `mask`, all [..., T].
  """

  config: Config

  def init(self, key: Array, *, value_head: bool = False) -> Params:
    """Fresh parameters, float32; a value head replaces the language head."""
    return _init(self.config, value_head, key)

  def hidden(
    self, params: Params, batch: Batch, *, noise: Array | None = None
  ) -> Array:
    """Hidden states after the last norm. [..., T] -> [..., T, D]."""
    rows = _rows(batch)
    if noise is not None:
      noise = noise.reshape(-1, *noise.shape[-2:])
    x, _ = self._apply(params, *rows, None, noise)
    return x.reshape(*batch['inputs'].shape, x.shape[-1])

  def logits(
    self,
    params: Params,
    inputs: Array,
    segments: Array | None = None,
    positions: Array | None = None,
  ) -> Array:
    """Next-token logits, float32. [..., T] -> [..., T, V].

    Without `segments` every token counts, padding included; without
    `positions` they are counted from the start of each row or segment.
    """
    batch = {'inputs': inputs, 'segments': segments, 'positions': positions}
    batch = {k: v for k, v in batch.items() if v is not None}
    return self._head(params, self.hidden(params, batch))

  def head_stats(
    self, params: Params, batch: Batch, *, noise: Array | None = None, **kw
  ) -> fused_head.HeadStats:
    """Statistics of the head at masked positions; see `head_stats`."""
    hidden = self.hidden(params, batch, noise=noise)
    return self.head_stats_of(params, hidden, batch, **kw)

  def head_stats_of(
    self, params: Params, hidden: Array, batch: Batch, **kw
  ) -> fused_head.HeadStats:
    """As `head_stats`, from hidden states already computed."""
    return fused_head.head_stats(
      *self.head_factors(params, hidden),
      batch['targets'],
      batch['mask'],
      softcap=self.config.final_softcap,
      **kw,
    )

  def logps(
    self, params: Params, batch: Batch, *, temperature: float | Array = 1.0
  ) -> Array:
    """log π(target), float32, zero off the mask. [..., T] -> [..., T]."""
    return self.head_stats(params, batch, temperature=temperature).logps

  def values(self, params: Params, batch: Batch) -> Array:
    """The value head at every position, float32. [..., T] -> [..., T]."""
    return values_of(params, self.hidden(params, batch))

  def logps_and_values(
    self, params: Params, batch: Batch, *, temperature: float | Array = 1.0
  ) -> tuple[Array, Array]:
    """`logps` and `values` of parameters with both heads, from one pass."""
    hidden = self.hidden(params, batch)
    stats = self.head_stats_of(params, hidden, batch, temperature=temperature)
    return stats.logps, values_of(params, hidden)

  def scores(self, params: Params, batch: Batch) -> Array:
    """One score for every document of every row. [..., T] -> [..., S].

    It is read where the last response token was just read: one position past
    the last *masked* one, found by mask and segment, never by token id. S is
    the length of `batch['examples']`, or 1.
    """
    examples = batch.get('examples')
    num = 1 if examples is None else examples.shape[-1]
    values = self.values(params, batch)
    at = jnp.stack([last_token(batch, s + 1) for s in range(num)], axis=-1)
    return jnp.take_along_axis(values, at, axis=-1)

  def init_cache(self, batch_size: int, length: int) -> Cache:
    """An empty cache with room for `length` tokens a row."""
    c = self.config
    shape = (c.depth, batch_size, length, c.num_kv_heads, c.head_dim)
    keys, values = jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype)
    slots = jnp.zeros((batch_size, length), jnp.int32)
    positions = jnp.zeros((batch_size,), jnp.int32)
    return Cache(keys, values, slots, slots, positions, jnp.int32(0))

  def extend(
    self,
    params: Params,
    cache: Cache,
    inputs: Array,
    segments: Array,
    positions: Array,
  ) -> tuple[Array, Cache]:
    """Reads tokens [B, T] into the cache; hidden states [B, T, D]."""
    return self._apply(params, inputs, segments, positions, cache, None)

  def repeat_cache(self, cache: Cache, times: int) -> Cache:
    """Every row several times, next to each other: its tokens are read once.

    For responses of a group, before `for_decoding`.
    """
    rows = lambda x, axis: jnp.repeat(x, times, axis=axis)
    return cache.replace(
      keys=rows(cache.keys, 1),
      values=rows(cache.values, 1),
      segments=rows(cache.segments, 0),
      slot_positions=rows(cache.slot_positions, 0),
      positions=rows(cache.positions, 0),
    )

  def for_decoding(
    self, params: Params, cache: Cache, *, unroll: bool = False
  ) -> tuple[Params, Cache]:
    """Both as a long loop of `decode` wants them.

    Weights are cast to the compute dtype once, not at every token. If `unroll`,
    every layer gets its own arrays: a scan over layers copies the weights of
    each out of their stack at every token, about a fifth of the time on a CPU.
    That takes the memory of the weights again and longer to compile, and in
    bfloat16 XLA may round elsewhere than it does in training.
    """
    params = {k: v for k, v in params.items() if k != 'value_head'}
    params = jax.tree_util.tree_map_with_path(
      functools.partial(_cast_weight, self.config.dtype), params
    )
    if not unroll:
      return params, cache
    layers = [
      jax.tree.map(lambda x: x[i], params['layers'])  # noqa: B023
      for i in range(self.config.depth)
    ]
    split = lambda x: tuple(jnp.split(x, len(layers)))
    cache = cache.replace(keys=split(cache.keys), values=split(cache.values))
    return params | {'layers': tuple(layers)}, cache

  def decode(
    self, params: Params, cache: Cache, tokens: Array
  ) -> tuple[Array, Cache]:
    """Reads one token a row, [B]; logits of the next, [B, V] float32."""
    tokens = tokens[:, None]
    x, cache = self.extend(
      params, cache, tokens, jnp.ones_like(tokens), cache.positions[:, None]
    )
    return self._head(params, x[:, 0]), cache

  def head_factors(self, params: Params, hidden: Array) -> tuple[Array, Array]:
    """[..., E] and [V, E], whose products are the logits before a softcap.

    They are the hidden states and the output embedding; and where an adapter
    changes that (`alignax.lora`), beside them h A and Bᵀ, so that no sum of
    weights is formed: E is D, or D and the rank.
    """
    head = params.get('lm_head', {})
    if 'lora_a' not in head:
      return hidden, self.head_weight(params)
    cast = lambda x: x.astype(hidden.dtype)
    low = hidden @ cast(head['lora_a'])
    weights = cast(head['embedding']), cast(head['lora_b']).T
    return (
      jnp.concatenate([hidden, low], axis=-1),
      jnp.concatenate(weights, axis=-1),
    )

  def head_weight(self, params: Params) -> Array:
    """The output embedding, [V, D]: its own, or the tied input embedding."""
    if 'lora_a' in params.get('lm_head', {}):
      raise ValueError(
        'An adapter changes the language head, which is then no matrix of its '
        'own: use head_factors, or leave lm_head out of lora.targets.'
      )
    if self.config.tie_embeddings:
      return params['embed']['embedding']
    if 'lm_head' not in params:
      raise ValueError(
        'These parameters have no language head (lm_head), as those of a '
        'value or reward model; log-probs and logits need one.'
      )
    return params['lm_head']['embedding']

  def _apply(self, params, inputs, segments, positions, cache, noise):
    # The heads live outside of the Linen module, which may not see them.
    backbone = {k: params[k] for k in ('embed', 'norm')}
    layers = params['layers']
    if isinstance(layers, tuple):  # From `for_decoding`.
      backbone |= {f'layers_{i}': layer for i, layer in enumerate(layers)}
    else:
      backbone['layers'] = layers
    return Transformer(self.config).apply(
      {'params': backbone}, inputs, segments, positions, cache, noise
    )

  def _head(self, params: Params, hidden: Array) -> Array:
    hidden, weight = self.head_factors(params, hidden)
    contract = (((hidden.ndim - 1,), (1,)), ((), ()))
    logits = jax.lax.dot_general(
      hidden,
      weight.astype(hidden.dtype),
      contract,
      preferred_element_type=jnp.float32,
    )
    cap = self.config.final_softcap
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def _cast_weight(dtype: str, path, x: Array) -> Array:
  """To the dtype of the computation, unless it computes in another."""
  keys = [key.key for key in path]
  if keys[-1] == 'scale' or set(keys) & set(quantize.KINDS):
    return x  # Norms, and what kernels are quantised by, multiply in float32.
  return x.astype(dtype)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _init(config: Config, value_head: bool, key: Array) -> Params:
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  shapes = jax.eval_shape(
    Transformer(config).init, key, tokens, tokens, tokens
  )['params']
  if not config.tie_embeddings and not value_head:
    shapes = shapes | {'lm_head': shapes['embed']}
  params = random_params(config, shapes, key)
  return add_value_head(params) if value_head else params


def values_of(params: Params, hidden: Array) -> Array:
  """The value head on hidden states. [..., D] -> [...] float32."""
  head = params['value_head']
  return hidden.astype(jnp.float32) @ head['kernel'] + head['bias']


def add_value_head(params: Params, *, keep_lm_head: bool = False) -> Params:
  """Turns a language model's parameters into a value or reward model's.

  The head starts at zero: the first scores are all equal, whatever the width.

  Args:
    params: of a language model.
    keep_lm_head: for a policy and its value function in one tree; only an
      untied head makes a difference.
  """
  width = params['norm']['scale'].shape[-1]
  head = {'kernel': jnp.zeros((width,)), 'bias': jnp.zeros(())}
  dropped = () if keep_lm_head else ('lm_head',)
  kept = {k: v for k, v in params.items() if k not in dropped}
  return kept | {'value_head': head}


def last_token(batch: Batch, segment: int) -> Array:
  """Index of the last response token of a document. [..., T] -> [...].

  `mask` is over targets, so the token itself is one position further: there
  the model has read the end-of-turn token. An absent document gives 0.
  """
  mask = batch['mask']
  if 'segments' in batch:
    mask = mask & (batch['segments'] == segment)
  steps = jnp.arange(mask.shape[-1])
  last = jnp.max(jnp.where(mask, steps + 1, 0), axis=-1)
  return jnp.minimum(last, mask.shape[-1] - 1)


def _rows(batch: Batch) -> tuple[Array, Array, Array]:
  """inputs, segments and positions as [B, T], with defaults."""
  flat = functools.partial(jnp.reshape, shape=(-1, batch['inputs'].shape[-1]))
  inputs = flat(batch['inputs'])
  segments = batch.get('segments')
  segments = jnp.ones_like(inputs) if segments is None else flat(segments)
  positions = batch.get('positions')
  if positions is None:
    return inputs, segments, segment_positions(segments)
  return inputs, segments, flat(positions)


def segment_positions(segments: Array) -> Array:
  """Positions that restart in every document. [..., T] -> [..., T]."""
  steps = jnp.arange(segments.shape[-1])
  before = jnp.pad(segments, [(0, 0)] * (segments.ndim - 1) + [(1, 0)])
  starts = jnp.where(segments != before[..., :-1], steps, 0)
  return steps - jax.lax.cummax(starts, axis=segments.ndim - 1)
