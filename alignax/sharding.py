"""Where arrays live: a mesh, and rules that map parameter paths to it."""

import math
import re

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Rules = tuple[tuple[str, P], ...]

# First match wins. `fsdp` splits what is large, `tensor` splits heads and MLP;
# the leading None of a layer's parameter is the scanned layer axis.
TRANSFORMER_RULES: Rules = (
  (r'(embed|lm_head)/embedding$', P('tensor', 'fsdp')),
  (r'attn/(q|k|v)/kernel$', P(None, 'fsdp', 'tensor', None)),
  (r'attn/(q|k|v)/bias$', P(None, 'tensor', None)),
  (r'attn/out/kernel$', P(None, 'tensor', None, 'fsdp')),
  (r'mlp/(gate|up)/kernel$', P(None, 'fsdp', 'tensor')),
  (r'mlp/down/kernel$', P(None, 'tensor', 'fsdp')),
  # Adapters are split as their kernel is; their rank is small, and whole.
  (r'(embed|lm_head)/lora_[ab]$', P()),
  (r'(attn/[qkv]|mlp/(gate|up))/lora_a$', P(None, 'fsdp')),
  (r'(attn/out|mlp/down)/lora_a$', P(None, 'tensor')),
  (r'(attn/[qkv]|mlp/(gate|up))/lora_b$', P(None, None, 'tensor')),
  (r'(attn/out|mlp/down)/lora_b$', P(None, None, 'fsdp')),
  (r'(attn/[qkv]|mlp/(gate|up))/(magnitude|lora_gain)$', P(None, 'tensor')),
  (r'(attn/out|mlp/down)/(magnitude|lora_gain)$', P(None, 'fsdp')),
  # Quantised kernels: nf4 has all inputs and all outputs on an axis each.
  (r'attn/out/(bfloat16|int8)/codes$', P(None, 'tensor', None, 'fsdp')),
  (r'(attn/[qkv]|mlp/(gate|up))/\w+/codes$', P(None, 'fsdp', 'tensor')),
  (r'(attn/out|mlp/down)/\w+/codes$', P(None, 'tensor', 'fsdp')),
  (r'(int8|nf4)/absmax(_scale|_mean)?$', P()),  # Little beside the codes.
  (r'norm/scale$', P()),
  (r'value_head/(kernel|bias)$', P()),
  (r'ns_coeffs$', P()),  # Muon's constants.
)
BATCH_AXES = ('data', 'fsdp')


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
  """A mesh of all devices; one axis may be -1, for what is left."""
  axes = {'data': data, 'fsdp': fsdp, 'tensor': tensor}
  devices = jax.device_count()
  fixed = math.prod(size for size in axes.values() if size > 0)
  free = [name for name, size in axes.items() if size == -1]
  if len(free) == 1:
    axes[free[0]] = devices // fixed
  if math.prod(axes.values()) != devices or min(axes.values()) < 1:
    raise ValueError(
      f'A mesh of data={data}, fsdp={fsdp}, tensor={tensor} does not cover '
      f'the {devices} devices; their product must, and one may be -1.'
    )
  # Auto: the compiler places activations, so models and losses stay plain.
  types = (AxisType.Auto,) * len(axes)
  return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=types)


def shard_by_rules(mesh: Mesh, rules: Rules, tree):
  """A sharding for every leaf, by the first rule found in its path.

  Works for a whole `TrainState`: the path of an optimiser moment ends with the
  path of its parameter. Scalars are replicated; any other leaf without a rule
  is an error, as a silently replicated kernel is found only out of memory.
  """

  def find(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if math.prod(leaf.shape) <= 1:  # Scalars; Adafactor's unused moments too.
      return NamedSharding(mesh, P())
    for pattern, spec in rules:
      if re.search(pattern, name):
        return NamedSharding(mesh, _fit(mesh, spec, leaf.shape, name))
    raise ValueError(f'No partition rule matches {name} of shape {leaf.shape}.')

  return jax.tree_util.tree_map_with_path(find, tree)


def replicate(mesh: Mesh, tree):
  """A replicated sharding for every leaf."""
  return jax.tree.map(lambda _: NamedSharding(mesh, P()), tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over `data` and `fsdp`, the rest of every array whole."""
  return NamedSharding(mesh, P(BATCH_AXES))


def to_host(tree):
  """Arrays as numpy, whole, on every process that calls it."""

  def gather(x):
    local = not isinstance(x, jax.Array)  # What is numpy stays as it is.
    if local or x.is_fully_addressable or x.is_fully_replicated:
      return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)

  return jax.tree.map(gather, tree)


def shard_batch(mesh: Mesh, batch):
  """This process's rows -> global arrays, [B, ...] over `data` and `fsdp`."""
  where = batch_sharding(mesh)
  rows = math.prod(mesh.shape[axis] for axis in BATCH_AXES)

  def put(x):
    total = x.shape[0] * jax.process_count()
    if total % rows:
      raise ValueError(
        f'A batch of {total} rows does not divide over data * fsdp = {rows} '
        'devices; change data.batch_size or the mesh.'
      )
    return jax.make_array_from_process_local_data(where, np.asarray(x))

  return jax.tree.map(put, batch)


def pmap_step(update, weigh):
  """The replicated data-parallel form of a step, by `jax.pmap`.

  Args:
    update: from `train.make_update(..., axis_name='devices')`.
    weigh: maps a whole batch to its weights.

  Returns:
    `step(state, frozen, batch, key)`: the state and frozen parameters carry a
    leading device axis (`flax.jax_utils.replicate`), the batch is whole and is
    cut here, after it was weighed; so devices add up to exactly one batch.
  """
  mapped = jax.pmap(
    update,
    axis_name='devices',
    in_axes=(0, 0, 0, 0, None),
    donate_argnums=0,
  )
  n = jax.local_device_count()
  cut = lambda x: x.reshape(n, -1, *x.shape[1:])

  def step(state, frozen, batch, key):
    parts = jax.tree.map(cut, (batch, weigh(batch)))
    state, metrics = mapped(state, frozen, *parts, key)
    return state, jax.tree.map(lambda x: x[0], metrics)

  return step


def _fit(mesh: Mesh, spec: P, shape, name: str) -> P:
  """`spec` for a leaf of this shape, or an error that says what divides not.

  Optimisers may keep moments of fewer dimensions than the parameter
  (Adafactor's rows and columns): those are small, and replicated.
  """
  if len(spec) > len(shape):
    return P()
  for size, axis in zip(shape, spec):
    if axis is not None and size % mesh.shape[axis]:
      raise ValueError(
        f'{name} of shape {tuple(shape)} does not divide over mesh axis '
        f'{axis!r} of size {mesh.shape[axis]} (spec {spec}); choose a mesh '
        f'whose {axis!r} divides {size}.'
      )
  return spec
