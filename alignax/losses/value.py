"""Losses of value models."""

import jax
import jax.numpy as jnp

from alignax.numerics import matched
from alignax.types import Array, Metrics


def clipped_value_loss(
  values: Array,
  old_values: Array,
  returns: Array,
  *,
  clip: float = 0.2,
) -> tuple[Array, Metrics]:
  """Half the squared error to the returns, pessimistic about large moves.

    L = ½ max((v - R)², (clip(v, v_old - ε, v_old + ε) - R)²)

  No gradient flows to `old_values` or `returns`.

  See Huang et al., section 4 (https://arxiv.org/abs/2403.17031).

  Args:
    values: the value before every token, [...].
    old_values: the same when the tokens were sampled, [...].
    returns: what the values should have been, [...].
    clip: how far a value may move from its old one.

  Returns:
    The loss and the metrics of every token, all [...].
  """
  returns, values, old_values = matched(
    returns, values=values, old_values=old_values
  )
  old_values, returns = jax.lax.stop_gradient((old_values, returns))
  near = old_values + jnp.clip(values - old_values, -clip, clip)
  error, near_error = (values - returns) ** 2, (near - returns) ** 2
  metrics = {
    'value/error': error,
    'value/clipped': jnp.asarray(near_error > error, error.dtype),
  }
  return 0.5 * jnp.maximum(error, near_error), metrics
