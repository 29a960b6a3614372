"""Which tokens may be drawn: functions of logits [B, V] and of scalar arrays.

None of them sorts the vocabulary. A filter keeps the logits above a threshold
of its row, and the threshold is found bit by bit (32 passes over [B, V]),
which is exact and several times faster than a sort. Tokens that tie with the
last one kept are kept.
"""

import jax
import jax.numpy as jnp
import numpy as np

from alignax.sampling.settings import Sampling
from alignax.types import Array


def filter_logits(logits: Array, sampling: Sampling) -> Array:
  """Top-k, then top-p of what is left, then min-p; -inf for what falls."""
  filters = [
    (sampling.top_k > 0, keep_top_k, sampling.top_k),
    (sampling.top_p < 1, keep_top_p, sampling.top_p),
    (sampling.min_p > 0, keep_min_p, sampling.min_p),
  ]
  for is_on, keep, amount in filters:
    # A filter that is off costs nothing, though it is compiled.
    logits = jax.lax.cond(is_on, keep, lambda x, _: x, logits, amount)
  return logits


def keep_top_k(logits: Array, k: Array) -> Array:
  """Keeps the k largest of every row."""
  return _keep(logits, threshold(logits, jnp.ones_like(logits), k))


def keep_top_p(logits: Array, p: Array) -> Array:
  """Keeps the fewest tokens whose probability adds up to p or more.

  Holtzman et al., section 3.1 (https://arxiv.org/abs/1904.09751).
  """
  return _keep(logits, threshold(logits, jax.nn.softmax(logits), p))


def keep_min_p(logits: Array, p: Array) -> Array:
  """Keeps tokens at least p times as likely as the likeliest.

  Nguyen et al., section 3 (https://arxiv.org/abs/2407.01082).
  """
  return _keep(logits, jnp.max(logits, axis=-1) + jnp.log(p))


def penalise_repeats(logits: Array, seen: Array, penalty: Array) -> Array:
  """Divides positive logits of seen tokens by the penalty, multiplies others.

  Keskar et al., section 4.1 (https://arxiv.org/abs/1909.05858), with the
  correction for negative logits that everyone uses since.

  Args:
    logits: [B, V].
    seen: whether a token stands in the row already, prompt included, [B, V].
    penalty: above 1 discourages repeats, 1 is none, [].
  """
  penalised = jnp.where(logits > 0, logits / penalty, logits * penalty)
  return jnp.where(seen, penalised, logits)


def forbid(logits: Array, ids: Array, is_on: Array) -> Array:
  """Makes the tokens `ids` [n] impossible; negative ids are none."""
  # Out of bounds is dropped; a negative index would count from the end.
  at = jnp.where((ids >= 0) & is_on, ids, logits.shape[-1])
  return jnp.asarray(logits).at[:, at].set(-jnp.inf, mode='drop')


def threshold(logits: Array, weights: Array, target: Array) -> Array:
  """The largest x such that the weights of logits >= x add up to `target`.

  Args:
    logits: [B, V].
    weights: not negative, [B, V].
    target: [].

  Returns:
    [B]; lower than all logits where their weights never reach the target.
  """
  ranks = _rank(logits)

  def set_bit(i, least):
    raised = least | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    above = ranks >= raised[:, None]
    total = jnp.sum(jnp.where(above, weights, 0.0), axis=-1)
    return jnp.where(total >= target, raised, least)

  start = jnp.zeros(logits.shape[:1], jnp.uint32)
  return _unrank(jax.lax.fori_loop(0, 32, set_bit, start))


def _keep(logits: Array, least: Array) -> Array:
  return jnp.where(logits >= least[:, None], logits, -jnp.inf)


SIGN = np.uint32(1 << 31)


def _rank(x: Array) -> Array:
  """Floats to integers of the same order."""
  bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
  return jnp.where(bits >= SIGN, ~bits, bits | SIGN)


def _unrank(ranks: Array) -> Array:
  bits = jnp.where(ranks >= SIGN, ranks ^ SIGN, ~ranks)
  x = jax.lax.bitcast_convert_type(bits, jnp.float32)
  return jnp.where(jnp.isnan(x), -jnp.inf, x)  # Below -inf there is only NaN.
