"""Weights of a Hugging Face state dict to our tree and back, bit for bit.

One table says where every tensor goes. Hugging Face stores a matrix as
[outputs, inputs], both flattened, and one tensor a layer; we store kernels as
[inputs..., outputs...] with all layers stacked.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignax.models.config import Config
from alignax.models.model import Model
from alignax.types import Params

LAYER = 'model.layers.{}.'


class Tensor(NamedTuple):
  """A tensor that is read only when it is needed."""

  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]


class Entry(NamedTuple):
  """Where a parameter is found.

  Attributes:
    path: in our tree, joined by '/'.
    name: Hugging Face's; with {} for the number of the layer.
    inputs: number of input axes of a kernel, which Hugging Face stores
      transposed; 0 for a bias; None for what both store alike.
  """

  path: str
  name: str
  inputs: int | None = None


def table(config: Config, *, value_head: bool = False) -> list[Entry]:
  """Every parameter of a model, with its Hugging Face name."""
  entries = [
    Entry('embed/embedding', 'model.embed_tokens.weight'),
    Entry('norm/scale', 'model.norm.weight'),
    *_norms(config),
    Entry('layers/attn/out/kernel', LAYER + 'self_attn.o_proj.weight', 2),
  ]
  for name in 'qkv':
    module = f'{LAYER}self_attn.{name}_proj.'
    entries.append(Entry(f'layers/attn/{name}/kernel', module + 'weight', 1))
    if config.qkv_bias:
      entries.append(Entry(f'layers/attn/{name}/bias', module + 'bias', 0))
  if config.qk_norm:
    for name in ('q_norm', 'k_norm'):
      module = f'{LAYER}self_attn.{name}.weight'
      entries.append(Entry(f'layers/attn/{name}/scale', module))
  for name in ('gate', 'up', 'down'):
    module = f'{LAYER}mlp.{name}_proj.weight'
    entries.append(Entry(f'layers/mlp/{name}/kernel', module, 1))
  if value_head:
    entries.append(Entry('value_head/kernel', 'score.weight', 1))
  elif not config.tie_embeddings:
    entries.append(Entry('lm_head/embedding', 'lm_head.weight'))
  return entries


def _norms(config: Config) -> list[Entry]:
  # Gemma gives Llama's name of the norm before the MLP to another one.
  names = {'attn_norm': 'input', 'mlp_norm': 'post_attention'}
  if config.post_norms:
    names = {
      'attn_norm': 'input',
      'attn_post_norm': 'post_attention',
      'mlp_norm': 'pre_feedforward',
      'mlp_post_norm': 'post_feedforward',
    }
  return [
    Entry(f'layers/{ours}/scale', f'{LAYER}{name}_layernorm.weight')
    for ours, name in names.items()
  ]


def from_hf(
  config: Config,
  tensors: Mapping[str, Tensor],
  *,
  place: Callable[[str, np.ndarray], jax.Array] = lambda _, x: jnp.asarray(x),
) -> Params:
  """The params tree of a state dict.

  All names and shapes are checked before anything is read; then one leaf at a
  time is held in host memory.

  Args:
    config: of the model.
    tensors: by Hugging Face name. With `score.weight` the result has a value
      head instead of a language head.
    place: puts a leaf, given its path, on its devices.

  Raises:
    ValueError: naming missing, unexpected and mis-shaped tensors.
  """
  value_head = 'score.weight' in tensors
  shapes = abstract_params(config, value_head=value_head)
  entries = table(config, value_head=value_head)
  _check(config, shapes, entries, tensors)
  flat = {}
  for entry in entries:
    flat[entry.path] = place(
      entry.path, _read(entry, _leaf(shapes, entry.path).shape, tensors)
    )
  if value_head:
    flat['value_head/bias'] = place('value_head/bias', np.zeros((), np.float32))
  return nest(flat)


def to_hf(config: Config, params: Params) -> dict[str, np.ndarray]:
  """The state dict of a params tree, as numpy arrays.

  The bias of a value head has no place in it.
  """
  value_head = 'value_head' in params
  check_params(config, params)
  tensors = {}
  for entry in table(config, value_head=value_head):
    leaf = np.asarray(_leaf(params, entry.path))
    layers = leaf if '{}' in entry.name else leaf[None]
    for i, x in enumerate(layers):
      shape = _hf_shape(entry, x.shape)
      if entry.inputs is not None:
        x = x.reshape(shape[::-1]).T
      tensors[entry.name.format(i)] = np.ascontiguousarray(x)
  return tensors


def abstract_params(config: Config, *, value_head: bool = False) -> Params:
  """Shapes and dtypes of a model's parameters."""
  init = lambda key: Model(config).init(key, value_head=value_head)
  return jax.eval_shape(init, jax.eval_shape(jax.random.key, 0))


def check_params(config: Config, params: Params, where: str = 'params') -> None:
  """Raises unless `params` (or their shapes) belong to `config`."""
  value_head = 'value_head' in params
  expected = flatten(abstract_params(config, value_head=value_head))
  found = flatten(params)
  if value_head and 'lm_head/embedding' in found:
    # A policy and its value function may share one tree.
    expected['lm_head/embedding'] = expected['embed/embedding']
  errors = [f'{path} is missing' for path in expected.keys() - found.keys()]
  errors += [f'{path} is unexpected' for path in found.keys() - expected.keys()]
  for path in expected.keys() & found.keys():
    want, have = tuple(expected[path].shape), tuple(found[path].shape)
    if want != have:
      errors.append(f'{path} has shape {have}, expected {want}')
  _raise(f'{where} are not of the model described by its config', errors)


def flatten(tree: Params) -> dict[str, jax.Array]:
  """Leaves by path, joined by '/'."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  join = lambda path: '/'.join(key.key for key in path)
  return {join(path): leaf for path, leaf in leaves}


def _check(config, shapes, entries, tensors) -> None:
  expected = {}
  for entry in entries:
    shape = _leaf(shapes, entry.path).shape
    if '{}' in entry.name:
      shape = _hf_shape(entry, shape[1:])
      for i in range(config.depth):
        expected[entry.name.format(i)] = shape
    else:
      expected[entry.name] = _hf_shape(entry, shape)
  errors = [f'{name} is missing' for name in expected if name not in tensors]
  unexpected = tensors.keys() - expected.keys()
  errors += [f'{name} is unexpected' for name in unexpected]
  for name in expected.keys() & tensors.keys():
    have = tuple(tensors[name].shape)
    if have != expected[name]:
      errors.append(f'{name} has shape {have}, expected {expected[name]}')
  _raise(
    f'The weights are not of the {config.family} model described by '
    'config.json',
    errors,
  )


def _raise(message: str, errors: list[str]) -> None:
  if errors:
    shown = sorted(errors)[:10]
    more = len(errors) - len(shown)
    tail = f'; and {more} more' if more else ''
    raise ValueError(f'{message}: {"; ".join(shown)}{tail}.')


def _read(entry: Entry, shape, tensors) -> np.ndarray:
  if '{}' not in entry.name:
    return _to_ours(entry, tensors[entry.name].read(), shape)
  # Filled in place: a stack of views would hold every layer twice.
  first = tensors[entry.name.format(0)].read()
  leaf = np.empty(shape, first.dtype)
  for i in range(shape[0]):
    x = first if i == 0 else tensors[entry.name.format(i)].read()
    if x.dtype != leaf.dtype:
      raise ValueError(
        f'{entry.name.format(i)} is {x.dtype}, but layer 0 has {leaf.dtype}; '
        'all layers must be stored in one type.'
      )
    leaf[i] = _to_ours(entry, x, shape[1:])
  return leaf


def _to_ours(entry: Entry, x: np.ndarray, shape) -> np.ndarray:
  return x if entry.inputs is None else x.T.reshape(shape)


def _hf_shape(entry: Entry, shape: tuple[int, ...]) -> tuple[int, ...]:
  if entry.inputs is None:
    return tuple(shape)
  outputs = (math.prod(shape[entry.inputs :]),)
  inputs = (math.prod(shape[: entry.inputs]),) if entry.inputs else ()
  return outputs + inputs


def _leaf(tree, path: str):
  for key in path.split('/'):
    tree = tree[key]
  return tree


def nest(flat: Mapping[str, jax.Array]) -> Params:
  """A tree of leaves by path: undoes `flatten`."""
  tree: Params = {}
  for path, leaf in flat.items():
    *parents, last = path.split('/')
    node = tree
    for key in parents:
      node = node.setdefault(key, {})
    node[last] = leaf
  return tree
