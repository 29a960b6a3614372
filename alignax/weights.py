"""How much each entry of a loss counts.

A weighted sum, unlike a masked mean, adds up: over microbatches, devices and
hosts it gives what one large batch would have given, as long as the weights
come from the mask of the whole batch. They sum to one (`per_budget`: to at most
one), and what is masked out has weight 0, also when nothing is left.
"""

import chex
import jax
import jax.numpy as jnp

from alignax.types import Array


def per_token(mask: Array) -> Array:
  """Every token alike, so a long response counts for more (SFT, DAPO, BNPO).

  Args: mask [..., T]. Returns: weights [..., T].
  """
  mask = jnp.asarray(mask, jnp.float32)
  return mask / jnp.maximum(jnp.sum(mask), 1)


def per_sequence(mask: Array, segments: Array | None = None) -> Array:
  """Every sequence alike, shared evenly among its tokens (GRPO).

  Sequences without a token in the mask are not counted.

  Args:
    mask: [..., T].
    segments: int [..., T]; where given, every document of a packed row is a
      sequence of its own.

  Returns:
    weights [..., T].
  """
  mask = jnp.asarray(mask, jnp.float32)
  lengths, count = _lengths_and_count(mask, segments)
  return mask / jnp.maximum(lengths, 1) / jnp.maximum(count, 1)


def per_budget(
  mask: Array, *, length: int, segments: Array | None = None
) -> Array:
  """1 / (sequences · length) for every token (Dr. GRPO).

  The divisor does not depend on how long the responses came out, so neither
  long nor short ones are favoured. The weights sum to the share of the budget
  that was used: to one when every sequence has `length` tokens. A `length` of 1
  gives the mean over sequences of token sums (LUSPO).

  See Liu et al., section 3.2 (https://arxiv.org/abs/2503.20783).

  Args:
    mask: [..., T].
    length: the tokens that a response may have.
    segments: int [..., T], as for `per_sequence`.

  Returns:
    weights [..., T].
  """
  mask = jnp.asarray(mask, jnp.float32)
  _, count = _lengths_and_count(mask, segments)
  return mask / (jnp.maximum(count, 1) * length)


def per_example(exists: Array | int) -> Array:
  """Every example alike (DPO, reward models).

  Args: exists, bool [...]: which examples there are; or how many, B.
  Returns: weights [...], or [B].
  """
  if isinstance(exists, int):
    exists = jnp.ones((exists,))
  return per_token(exists)


def _lengths_and_count(mask, segments):
  """The tokens of every token's sequence, and the number of sequences."""
  if segments is None:
    lengths = jnp.sum(mask, axis=-1, keepdims=True)
    return lengths, jnp.sum(lengths > 0)
  chex.assert_equal_shape([mask, segments])

  def one_row(mask, segments):
    sizes = jax.ops.segment_sum(mask, segments, mask.shape[-1] + 1)
    return sizes[segments], jnp.sum(sizes > 0)

  rows = jnp.vectorize(one_row, signature='(t),(t)->(t),()')
  lengths, counts = rows(mask, segments)
  return lengths, jnp.sum(counts)
