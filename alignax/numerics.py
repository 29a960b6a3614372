"""Functions that keep values and gradients finite for every finite input.

Training runs meet extreme inputs: a response of thousands of tokens moves its
log-ratio by hundreds, and `exp` of 89 is already infinite in float32. One
infinite entry makes the gradient of a whole batch NaN, even at weight zero.
"""

import chex
import jax.numpy as jnp

from alignax.types import Array

# Past this exponent `bounded_exp` goes on in a straight line. Ratios of e^20
# (half a billion) carry no information, and their squares and their products
# with lengths still fit in float32.
MAX_EXPONENT = 20.0


def matched(*arrays: Array) -> list[Array]:
  """Arrays of one shape, at least float32. Raises if their shapes differ."""
  chex.assert_equal_shape(arrays)
  return widened(*arrays)


def widened(*arrays: Array) -> list[Array]:
  """bfloat16, float16 and integers as float32; float32 and float64 as is."""
  return [jnp.asarray(x, _wide(jnp.result_type(x))) for x in arrays]


def _wide(dtype):
  if not jnp.issubdtype(dtype, jnp.floating):
    return jnp.result_type(float)
  return jnp.promote_types(dtype, jnp.float32)


def bounded_exp(x: Array) -> Array:
  """exp(x) up to x = 20, and its tangent from there on.

  Value and slope are continuous. A clipped exponent would be as finite, but its
  gradient is zero, so an entry that went too far would never be called back.
  """
  near = jnp.exp(jnp.minimum(x, MAX_EXPONENT))
  return near * (1 + jnp.maximum(x - MAX_EXPONENT, 0.0))


def log1mexp(x: Array) -> Array:
  """log(1 - exp(x)) for x < 0; past x = -1e-6 it follows its tangent.

  The function falls to -∞ at 0, where log-probs of certain tokens lie, and has
  no value beyond, where rounding puts some of them.
  """
  edge, slope = -1e-6, -1e6
  near = jnp.minimum(x, edge)
  # Each branch sees only inputs at which it is accurate and its gradient is
  # finite: a `where` over results lets the NaN of the other branch into it.
  is_small = near > -0.6931472
  small = jnp.log(-jnp.expm1(jnp.where(is_small, near, -0.5)))
  large = jnp.log1p(-jnp.exp(jnp.where(is_small, -1.0, near)))
  return jnp.where(is_small, small, large) + slope * jnp.maximum(x - edge, 0.0)


def choose(name: str, kind: str, options: dict):
  """`options[kind]`, or an error that lists what there is."""
  if kind not in options:
    raise ValueError(f'Unknown {name} {kind!r}; use one of {sorted(options)}.')
  return options[kind]
