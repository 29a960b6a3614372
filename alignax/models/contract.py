"""A product with a kernel, with gradients in their natural layouts."""

import functools

import jax

from alignax.types import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(x: Array, kernel: Array, axes: int) -> Array:
  """Contracts the last `axes` of x with the first `axes` of a kernel.

  JAX would compute the kernel's gradient as (dyᵀ x)ᵀ. Asked for xᵀ dy instead,
  XLA on CPU needs no transposed copy of dy, the largest array of the MLP.
  """
  last = tuple(range(x.ndim - axes, x.ndim))
  return jax.lax.dot_general(x, kernel, ((last, tuple(range(axes))), ((), ())))


def _forward(x, kernel, axes):
  return contract(x, kernel, axes), (x, kernel)


def _backward(axes, residuals, dy):
  x, kernel = residuals
  rows = tuple(range(x.ndim - axes))
  outs = dy.ndim - len(rows)
  dims = tuple(range(len(rows), dy.ndim)), tuple(range(axes, axes + outs))
  dx = jax.lax.dot_general(dy, kernel, (dims, ((), ())))
  dw = jax.lax.dot_general(x, dy, ((rows, rows), ((), ())))
  return dx, dw


contract.defvjp(_forward, _backward)
