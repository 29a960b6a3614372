"""Frozen kernels in 16, 8 or 4 bits, made whole just before their matmul.

A kernel [L, inputs..., outputs...] of a stack of layers is replaced by what is
stored of it, beside its bias:

  bfloat16/codes     uint16   [L, inputs..., outputs...]
  int8/codes         int8     [L, inputs..., outputs...]
  int8/absmax        float32  [L, outputs...]
  nf4/codes          uint8    [L, I / 2, O]    two codes a byte
  nf4/absmax         int8     [L, I / 64, O]
  nf4/absmax_scale   float32  [L, I / 64, O / 256]
  nf4/absmax_mean    float32  [L]

I and O are all inputs and all outputs, flattened; a last block of less than 64
inputs is filled up with zeros. Nothing of it is trained. The bits of bfloat16
are kept as integers: of an array of bfloat16 that a loop over layers reads, XLA
makes a float32 copy on a CPU, of all layers at once.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from alignax.types import Array, Params

KINDS = ('bfloat16', 'int8', 'nf4')
LOW = jnp.bfloat16  # Of embeddings beside them.
BLOCK = 64  # Inputs that share an absmax in nf4.
SECOND_BLOCK = 256  # Outputs whose absmax share a scale.
# Quantiles of a standard normal, scaled to [-1, 1], with an exact zero
# (Dettmers et al. 2023, appendix E, https://arxiv.org/abs/2305.14314).
NF4 = (
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
  -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
  0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
  0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
  0.7229568362236023, 1.0,
)  # fmt: skip

# What stands for one kernel: {'int8': {...}}, {'nf4': {...}}, {'kernel': x}.
Stored = Mapping[str, Array | Mapping[str, Array]]


def quantise(kernel: Array, kind: str, *, inputs: int = 1) -> Stored:
  """What is stored of the kernels of a stack of layers.

    bfloat16:  w, rounded
    int8:      round(127 w / a)          a = max |w| of an output
    nf4:       nearest(w / a) in NF4     a = max |w| of 64 inputs of an output

  In nf4 the absmax a are stored in 8 bits themselves ("double quantisation"):
  what is left of them without the mean of their layer is scaled by its largest
  value among 256 outputs. That is 4.13 bits a weight, as in the paper, section
  3; we use evenly spaced levels where its code used 8-bit floats.

  Dettmers et al. 2022 (https://arxiv.org/abs/2208.07339), 2023
  (https://arxiv.org/abs/2305.14314).

  Args:
    kernel: [L, inputs..., outputs...].
    kind: 'bfloat16', 'int8' or 'nf4'.
    inputs: number of input axes.
  """
  if kind not in KINDS:
    raise ValueError(f'kind is {kind!r}; it is one of {", ".join(KINDS)}.')
  if kind == 'bfloat16':
    return {kind: {'codes': kernel.astype(kind).view(jnp.uint16)}}
  make = {'int8': _to_int8, 'nf4': _to_nf4}[kind]
  # One layer at a time: float32 copies of all of them would be what is saved.
  one = lambda x: make(x.astype(jnp.float32), inputs)
  stored = jax.lax.map(one, kernel)
  if kind == 'nf4':
    stored = _shrink_absmax(stored)
  return {kind: stored}


def dequantise(stored: Stored, shape: tuple[int, ...], dtype) -> Array:
  """The kernel of one layer, [inputs..., outputs...], from what is stored.

  Args:
    stored: without the axis of layers; `{'kernel': x}` is merely cast.
    shape: of the kernel.
    dtype: of the result; the arithmetic before is float32.
  """
  if 'bfloat16' in stored:
    return stored['bfloat16']['codes'].view(jnp.bfloat16).astype(dtype)
  if 'int8' in stored:
    codes, absmax = stored['int8']['codes'], stored['int8']['absmax']
    return (codes * (absmax / 127.0)).astype(dtype)
  if 'nf4' in stored:
    return _from_nf4(stored['nf4'], shape).astype(dtype)
  return stored['kernel'].astype(dtype)


def find(module: Mapping) -> Stored:
  """What a module stores of its kernel; empty if it has none."""
  return {k: module[k] for k in (*KINDS, 'kernel') if k in module}


def quantise_params(params: Params, kind: str) -> Params:
  """`params` with kernels of layers quantised, and embeddings in bfloat16."""

  def visit(tree, path):
    if 'kernel' in tree:
      rest = {k: v for k, v in tree.items() if k != 'kernel'}
      return rest | quantise(tree['kernel'], kind, inputs=input_axes(path))
    return {
      k: visit(v, f'{path}/{k}') if isinstance(v, Mapping) else v
      for k, v in tree.items()
    }

  tables = {
    name: dict(params[name], embedding=params[name]['embedding'].astype(LOW))
    for name in ('embed', 'lm_head')
    if name in params
  }
  return params | tables | {'layers': visit(params['layers'], 'layers')}


def input_axes(path: str) -> int:
  """Axes that a module contracts; attention's output sums over heads too."""
  return 2 if path.endswith('attn/out') else 1


def _to_int8(kernel: Array, inputs: int) -> dict[str, Array]:
  absmax = jnp.max(jnp.abs(kernel), axis=tuple(range(inputs)))
  codes = jnp.round(kernel * (127.0 / jnp.where(absmax > 0, absmax, 1.0)))
  return {'codes': codes.astype(jnp.int8), 'absmax': absmax}


def _to_nf4(kernel: Array, inputs: int) -> dict[str, Array]:
  """Codes by the exact absmax, which are still float32. One layer."""
  size = math.prod(kernel.shape[:inputs])
  flat = kernel.reshape(size, -1)
  flat = jnp.pad(flat, [(0, -size % BLOCK), (0, 0)])
  blocks = flat.reshape(-1, BLOCK, flat.shape[1])
  absmax = jnp.max(jnp.abs(blocks), axis=1)
  scaled = blocks / jnp.where(absmax > 0, absmax, 1.0)[:, None]
  # Between two values of the table the border is half way.
  borders = [(a + b) / 2 for a, b in zip(NF4, NF4[1:])]
  codes = sum((scaled > border).astype(jnp.uint8) for border in borders)
  codes = codes.reshape(-1, 2, flat.shape[1])
  return {'codes': codes[:, 0] << 4 | codes[:, 1], 'absmax': absmax}


def _shrink_absmax(stored: dict[str, Array]) -> dict[str, Array]:
  """Double quantisation: absmax [L, I / 64, O] in 8 bits."""
  absmax = stored['absmax']
  mean = jnp.mean(absmax, axis=(1, 2))
  rest = absmax - mean[:, None, None]
  outputs = rest.shape[-1]
  padded = jnp.pad(rest, [(0, 0), (0, 0), (0, -outputs % SECOND_BLOCK)])
  groups = padded.reshape(*rest.shape[:2], -1, SECOND_BLOCK)
  scale = jnp.max(jnp.abs(groups), axis=-1) / 127.0
  wide = _widen(jnp.where(scale > 0, scale, 1.0), outputs)
  return stored | {
    'absmax': jnp.round(rest / wide).astype(jnp.int8),
    'absmax_scale': scale,
    'absmax_mean': mean,
  }


def _from_nf4(stored: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
  codes = stored['codes']
  outputs = codes.shape[-1]
  scale = _widen(stored['absmax_scale'], outputs)
  absmax = stored['absmax'] * scale + stored['absmax_mean']
  pairs = jnp.stack([codes >> 4, codes & 15], axis=1)
  values = jnp.take(jnp.array(NF4), pairs.astype(jnp.int32), mode='clip')
  blocks = values.reshape(-1, BLOCK, outputs) * absmax[:, None]
  flat = blocks.reshape(-1, outputs)
  return flat[: math.prod(shape) // outputs].reshape(shape)


def _widen(scale: Array, outputs: int) -> Array:
  """A value a group of outputs -> one an output. [..., G] -> [..., O]."""
  return jnp.repeat(scale, SECOND_BLOCK, axis=-1)[..., :outputs]
