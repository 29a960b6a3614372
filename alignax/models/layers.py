"""What the blocks of a decoder are made of; see `transformer.py`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from alignax import lora, quantize
from alignax.models.config import Config
from alignax.models.contract import contract
from alignax.types import Array

ACTIVATIONS = {
  'silu': jax.nn.silu,
  'gelu_tanh': lambda x: jax.nn.gelu(x, approximate=True),
}
# Only shapes are taken from the module; `init.py` draws the values.
UNSET = nn.initializers.zeros


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
