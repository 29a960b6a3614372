"""Functions that keep values and gradients finite for every finite input.

Training runs meet extreme inputs: a response of thousands of tokens moves its
log-ratio by hundreds, and `exp` of 89 is already infinite in float32. One
infinite entry makes the gradient of a whole batch NaN, even at weight zero.
"""

import chex
import jax
import jax.numpy as jnp

from alignax.types import Array

# Past this exponent `bounded_exp` goes on in a straight line. Ratios of e^20
# (half a billion) carry no information, and their squares and their products
# with lengths still fit in float32.
MAX_EXPONENT = 20.0
# Sums of it over a vocabulary, times gradients, still fit in float32.
LEAST_LOGP = -1e30


def matched(*numbers: Array, **floats: Array) -> list[Array]:
  """Arrays of one shape, at least float32; those without a name come first.

  Raises if their shapes differ, or if one with a name does not hold floats:
  token ids or a mask, where log-probs belong, would give a loss that looks
  like any other.
  """
  chex.assert_equal_shape([*numbers, *floats.values()])
  for name, x in floats.items():
    _assert_type(name, x, jnp.floating, 'floats')
  return widened(*numbers, *floats.values())


def widened(*arrays: Array) -> list[Array]:
  """bfloat16, float16 and integers as float32; float32 and float64 as is."""
  return [jnp.asarray(x, _wide(jnp.result_type(x))) for x in arrays]


def _wide(dtype):
  if not jnp.issubdtype(dtype, jnp.floating):
    return jnp.result_type(float)
  return jnp.promote_types(dtype, jnp.float32)


def as_bools(name: str, x: Array) -> Array:
  """A mask of bools or integers, as bools. Raises if it holds floats.

  A float is a probability or a weight, and a cast would count 0.01 as 1.
  """
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.bool_):
    _assert_type(name, x, jnp.integer, 'bools or integers')
  return x.astype(bool)


def as_integers(name: str, x: Array) -> Array:
  """The array. Raises if it does not hold integers."""
  x = jnp.asarray(x)
  _assert_type(name, x, jnp.integer, 'integers')
  return x


def _assert_type(name, x, kind, wanted):
  dtype = jnp.result_type(x)
  if not jnp.issubdtype(dtype, kind):
    raise TypeError(
      f'{name} holds {dtype}, but {wanted} are expected: are the arguments in '
      'order? If they are, convert it before the call.'
    )


def bounded_exp(x: Array) -> Array:
  """exp(x) up to x = 20, and its tangent from there on.

  Value and slope are continuous. A clipped exponent would be as finite, but its
  gradient is zero, so an entry that went too far would never be called back.
  """
  near = jnp.exp(jnp.minimum(x, MAX_EXPONENT))
  return near * (1 + jnp.maximum(x - MAX_EXPONENT, 0.0))


def log_softmax(logits: Array) -> Array:
  """Log-probs over the last axis, those of -inf being low, but finite.

  Sampling rules out tokens by -inf, and in 0 · log 0 that would be NaN.
  """
  return jnp.maximum(jax.nn.log_softmax(logits, axis=-1), LEAST_LOGP)


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
