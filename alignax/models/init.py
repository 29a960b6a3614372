"""Random parameters."""

import math

import jax
import jax.numpy as jnp

from alignax.models.config import Config
from alignax.types import Array, Params

EMBEDDING_STD = 0.02
# Leaves below this share one draw: for tiny models compiling a generator for
# each leaf takes longer than all the rest. Larger ones have their own, so that
# none is ever whole on a device that holds a part of it.
SMALL = 1 << 20


def random_params(config: Config, shapes: Params, key: Array) -> Params:
  """Parameters of the given shapes, float32.

  Kernels are normal with variance 1 / inputs, embeddings with a standard
  deviation of 0.02; norms start as the identity and biases at 0.
  """
  paths = jax.tree_util.tree_leaves_with_path(shapes)
  names = [
    jax.tree_util.keystr(p, simple=True, separator='/') for p, _ in paths
  ]
  drawn = {
    name: x
    for name, (_, x) in zip(names, paths)
    if name.endswith(('kernel', 'embedding'))
  }
  normal = _normals(drawn, key)
  constant = {'scale': 1.0 - config.norm_offset, 'bias': 0.0}
  leaves = [
    normal[name] * _std(name, x.shape)
    if name in normal
    else jnp.full(x.shape, constant[name.rpartition('/')[2]], jnp.float32)
    for name, (_, x) in zip(names, paths)
  ]
  return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _normals(shapes: dict, key: Array) -> dict[str, Array]:
  """Standard normal values for every leaf."""
  shared_key, own_key = jax.random.split(key)
  sizes = {name: math.prod(x.shape) for name, x in shapes.items()}
  small = [name for name in shapes if sizes[name] < SMALL]
  pool = jax.random.normal(shared_key, (sum(sizes[name] for name in small),))
  values, start = {}, 0
  for i, (name, x) in enumerate(shapes.items()):
    if name in small:
      part = pool[start : start + sizes[name]]
      values[name] = part.reshape(x.shape)
      start += sizes[name]
    else:
      values[name] = jax.random.normal(jax.random.fold_in(own_key, i), x.shape)
  return values


def _std(name: str, shape: tuple[int, ...]) -> float:
  if name.endswith('embedding'):
    return EMBEDDING_STD
  # [L, inputs..., outputs...]: attention's output has two input axes.
  inputs = shape[1:3] if name.endswith('attn/out/kernel') else shape[1:2]
  return math.prod(inputs) ** -0.5
