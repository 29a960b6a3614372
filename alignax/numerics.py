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
  return [
    jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
    for x in arrays
  ]


def bounded_exp(x: Array) -> Array:
  """exp(x) up to x = 20, and its tangent from there on.

  Value and slope are continuous. A clipped exponent would be as finite, but its
  gradient is zero, so an entry that went too far would never be called back.
  """
  near = jnp.exp(jnp.minimum(x, MAX_EXPONENT))
  return near * (1 + jnp.maximum(x - MAX_EXPONENT, 0.0))


def log1mexp(x: Array) -> Array:
  """log(1 - exp(x)) for x < 0, accurate at both ends."""
  # Each branch sees only inputs at which its gradient is finite: a `where`
  # over results alone lets the NaN of the other branch into the gradient.
  is_small = x > -0.6931472
  small = jnp.where(is_small, x, -0.5)
  large = jnp.where(is_small, -1.0, x)
  return jnp.where(
    is_small, jnp.log(-jnp.expm1(small)), jnp.log1p(-jnp.exp(large))
  )


def log_odds(logps: Array) -> Array:
  """log(p / (1 - p)) of log p; past log p = -1e-6 it follows its tangent."""
  edge = -1e-6
  near = jnp.minimum(logps, edge)
  slope = 1e6  # 1 / (1 - exp(edge)).
  return near - log1mexp(near) + slope * jnp.maximum(logps - edge, 0.0)


def choose(name: str, kind: str, options: dict):
  """`options[kind]`, or an error that lists what there is."""
  if kind not in options:
    raise ValueError(f'Unknown {name} {kind!r}; use one of {sorted(options)}.')
  return options[kind]
