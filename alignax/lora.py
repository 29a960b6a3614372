"""LoRA: roles that share one frozen base, each with small factors of its own.

    y = x W + s (x A) B        s = alpha / rank, or alpha / √rank (rsLoRA)

Hu et al. 2021 (https://arxiv.org/abs/2106.09685); rsLoRA: Kalajdzievski 2023
(https://arxiv.org/abs/2312.03732); DoRA: Liu et al. 2024
(https://arxiv.org/abs/2402.09353).

An adapter is a tree that mirrors the model's. Beside a kernel [L, inputs...,
outputs...] that it changes stand

  lora_a     [L, inputs..., rank]     uniform in ±1 / √inputs
  lora_b     [L, rank, outputs...]    zero, so that training starts at the base
  magnitude  [L, outputs...]          DoRA only: norms of the kernel's columns

A model reads `lora_a`, `lora_b` (s in it) and `lora_gain` where it finds them:
`make_join` lays adapters over the base so. No sum W + A B is ever kept.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches

import jax
import jax.numpy as jnp

from alignax import quantize
from alignax.types import Array, Params

LINEAR = r'^layers/(attn|mlp)/\w+/kernel$'  # All projections of all layers.
BASES = ('float32', *quantize.KINDS)
BASE = 'base'  # Its role among the frozen ones.
NO_TARGETS = 'none'


@dataclasses.dataclass(frozen=True)
class Lora:
  """What adapters there are, and what they stand on.

  Attributes:
    rank: of every A B.
    alpha: s = alpha / rank.
    targets: regular expression, searched in paths such as
      'layers/attn/q/kernel', 'embed/embedding', 'lm_head/embedding'; or
      'none': only a value head is learned, on a body that stays as it is.
    dora: also learn the norm of every output's weights (DoRA).
    rslora: s = alpha / √rank, so that the rank may grow.
    base: how the kernels of the base are kept: 'float32', 'bfloat16', 'int8'
      or 'nf4' (QLoRA); its embeddings are in bfloat16 in all but the first.
  """

  rank: int
  alpha: float = 16.0
  targets: str = LINEAR
  dora: bool = False
  rslora: bool = False
  base: str = 'float32'

  def __post_init__(self):
    if self.rank < 1:
      raise ValueError(f'lora.rank is {self.rank}; give at least 1.')
    if self.alpha <= 0:
      raise ValueError(f'lora.alpha is {self.alpha}; give more than 0.')
    if self.base not in BASES:
      raise ValueError(
        f'lora.base is {self.base!r}; it is one of {", ".join(BASES)}.'
      )
    try:
      re.compile(self.targets)
    except re.error as error:
      raise ValueError(
        f'lora.targets {self.targets!r} is no regular expression: {error}.'
      ) from error

  @property
  def scale(self) -> float:
    return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


def find_targets(shapes: Params, settings: Lora) -> tuple[str, ...]:
  """Paths of the parameters that the targets rule means.

  Only matrices can be adapted; embeddings only where the head is a matrix of
  its own, as one adapter cannot serve both of its uses.

  Args:
    shapes: of a language model's parameters, not quantised.
    settings: with the rule.

  Raises:
    ValueError: the rule matches nothing, or what cannot be adapted.
  """
  if settings.targets == NO_TARGETS:
    return ()
  known = _candidates(shapes)
  found = tuple(path for path in known if re.search(settings.targets, path))
  if not found:
    plain = re.sub(r'[^\w/]', '', settings.targets)
    near = get_close_matches(plain, known, 3, 0.3) or known
    raise ValueError(
      f'lora.targets {settings.targets!r} matches no parameter that can be '
      f'adapted; the nearest are {", ".join(near)}.'
    )
  embeddings = [path for path in found if path.endswith('embedding')]
  if settings.dora and embeddings:
    raise ValueError(
      f'lora.dora is for the projections of layers, and lora.targets means '
      f'{", ".join(embeddings)} too: leave them out, or set dora to False.'
    )
  return found


def _candidates(shapes: Params) -> list[str]:
  paths = []
  for keys, _ in jax.tree_util.tree_leaves_with_path(shapes):
    path = '/'.join(key.key for key in keys)
    in_layers = path.startswith('layers/') and path.endswith('kernel')
    if in_layers or (path.endswith('embedding') and 'lm_head' in shapes):
      paths.append(path)
  return paths


def init_adapters(
  base: Params, shapes: Params, settings: Lora, key: Array
) -> Params:
  """Fresh adapters, float32, with which the model is exactly its base.

  Args:
    base: as it is kept; DoRA starts from the norms of its kernels.
    shapes: as `find_targets` takes them.
    settings: which, and how large.
    key: of the random A.
  """
  adapters: Params = {}
  for i, path in enumerate(find_targets(shapes, settings)):
    *parents, last = path.split('/')
    shape = _at(shapes, parents)[last].shape
    leaves = _init(path, shape, settings.rank, jax.random.fold_in(key, i))
    if settings.dora:
      stored = quantize.find(_at(base, parents))
      leaves['magnitude'] = column_norms(stored, **leaves)
    node = adapters
    for parent in parents[:-1]:
      node = node.setdefault(parent, {})
    node[parents[-1]] = leaves
  return adapters


def _init(path: str, shape, rank: int, key: Array) -> Params:
  if path == 'embed/embedding':
    # A row is read, not summed over: the zeros are where the tokens are.
    return {
      'lora_a': jnp.zeros((shape[0], rank)),
      'lora_b': jax.random.normal(key, (rank, shape[1])),
    }
  if path == 'lm_head/embedding':  # [V, D], the transpose of a kernel.
    layers, inputs, outputs = (), shape[1:], shape[:1]
  else:
    axes = 1 + quantize.input_axes(path.removesuffix('/kernel'))
    layers, inputs, outputs = shape[:1], shape[1:axes], shape[axes:]
  bound = math.prod(inputs) ** -0.5
  lora_a = jax.random.uniform(
    key, (*layers, *inputs, rank), minval=-bound, maxval=bound
  )
  return {'lora_a': lora_a, 'lora_b': jnp.zeros((*layers, rank, *outputs))}


def _at(tree: Params, keys) -> Params:
  return functools.reduce(lambda node, key: node[key], keys, tree)


def is_whole(tree: Params) -> bool:
  """Whether these are all parameters of a model, not an adapter."""
  return 'norm' in tree


def settle(base: Params, adapters: Params, scale: float) -> Params:
  """What a model reads beside the base: s in `lora_b`, and DoRA's gain.

    DoRA: y = (x W + s (x A) B) m / |W + s A B|

  The norm of every column is taken as a constant by the gradient, as in section
  4.3 of the paper. Everything else, a value head say, stays as it is.
  """
  if 'lora_a' not in adapters:
    return {
      k: settle(base.get(k, {}), v, scale) if isinstance(v, Mapping) else v
      for k, v in adapters.items()
    }
  settled = {
    'lora_a': adapters['lora_a'],
    'lora_b': adapters['lora_b'] * scale,
  }
  if 'magnitude' in adapters:
    norms = column_norms(quantize.find(base), **settled)
    norms = jax.lax.stop_gradient(norms)
    settled['lora_gain'] = adapters['magnitude'] / norms
  return settled


def overlay(base: Params, tree: Params) -> Params:
  """The base with the leaves of `tree` put in; nothing is copied."""
  return dict(base) | {
    k: overlay(base.get(k, {}), v) if isinstance(v, Mapping) else v
    for k, v in tree.items()
  }


def make_join(settings: Lora) -> Callable:
  """Makes the `train.Join` of roles on `frozen['base']`.

  What is trained is as `init_adapters` makes it; what is frozen was settled
  beforehand, or is a whole model of its own. A frozen role without leaves is
  the base itself.
  """

  def join(params, frozen):
    base = frozen[BASE]
    trained = {
      role: overlay(base, settle(base, tree, settings.scale))
      for role, tree in params.items()
    }
    read_only = {
      role: tree if is_whole(tree) else overlay(base, tree)
      for role, tree in frozen.items()
      if role != BASE
    }
    return trained, read_only

  return join


@jax.jit
def column_norms(
  stored: quantize.Stored, lora_a: Array, lora_b: Array
) -> Array:
  """|W + A B| of every output, s being in B. -> [L, outputs...] float32."""
  axes = lora_a.ndim - 2
  shape = (*lora_a.shape[1:-1], *lora_b.shape[2:])

  def one(layer):
    kernel = quantize.dequantise(layer[0], shape, jnp.float32)
    kernel += jnp.tensordot(*layer[1:], axes=1)
    return jnp.sqrt(jnp.sum(jnp.square(kernel), axis=tuple(range(axes))))

  # One layer at a time: all of the sums together are as large as the base.
  detached = jax.lax.stop_gradient((stored, lora_a, lora_b))
  return jax.lax.map(one, detached)


def merge(params: Params, shapes: Params, dtype) -> Params:
  """Plain parameters that compute what joined ones do.

  Args:
    params: with adapters settled; kernels may be quantised.
    shapes: of the model's parameters, not quantised.
    dtype: of every matrix that changes; the sums are float32.
  """

  def visit(tree, shapes, name=''):
    if not isinstance(tree, Mapping):
      return tree
    stored, low = dict(quantize.find(tree)), pick(tree, LEAVES)
    rest = {k: v for k, v in tree.items() if k not in (*LEAVES, *stored)}
    if stored:
      shape = shapes['kernel'].shape[1:]
      rest['kernel'] = _merged(stored, low, shape, jnp.dtype(dtype))
      return rest
    if low:
      change = low['lora_a'] @ low['lora_b']
      table = rest['embedding'].astype(jnp.float32)
      if name == 'lm_head':  # Stored as an embedding, [V, D].
        change = change.T
      return rest | {'embedding': (table + change).astype(dtype)}
    return {k: visit(v, shapes.get(k, {}), k) for k, v in rest.items()}

  heads = pick(params, ('value_head',))  # No projection: its kernel is [D].
  body = {k: v for k, v in params.items() if k not in heads}
  return visit(body, shapes) | heads


def pick(tree: Mapping, names) -> dict:
  return {name: tree[name] for name in names if name in tree}


LEAVES = ('lora_a', 'lora_b', 'lora_gain')  # What a model reads.


@functools.partial(jax.jit, static_argnums=(2, 3))
def _merged(stored, low, shape, dtype):
  def one(layer):
    stored, low = layer
    kernel = quantize.dequantise(stored, shape, jnp.float32)
    if 'lora_a' in low:
      kernel += jnp.tensordot(low['lora_a'], low['lora_b'], axes=1)
    return (kernel * low.get('lora_gain', 1.0)).astype(dtype)

  return jax.lax.map(one, (stored, low))
