"""How much each entry of a loss counts.

A weighted sum, unlike a masked mean, adds up: over microbatches, devices and
hosts it gives what one large batch would have given, as long as the weights
come from the mask of the whole batch. They sum to one (`per_budget`: to the
used share of `length`, more than one where sequences are longer than that), and
what is masked out has weight 0, also when nothing is left.
"""

import jax.numpy as jnp

from alignax.logps import document_sums
from alignax.numerics import as_bools, as_integers
from alignax.types import Array


def per_token(mask: Array) -> Array:
  """Every token alike, so a long response counts for more (SFT, DAPO, BNPO).

  Args: mask [..., T]. Returns: weights [..., T].
  """
  mask = _as_numbers(mask)
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
  mask = _as_numbers(mask)
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
  mask = _as_numbers(mask)
  _, count = _lengths_and_count(mask, segments)
  return mask / (jnp.maximum(count, 1) * length)


def per_example(exists: Array | int) -> Array:
  """Every example alike (DPO, reward models).

  Args: exists, bool [...]: which examples there are; or how many, B.
  Returns: weights [...], or [B].
  """
  if isinstance(exists, int):
    exists = jnp.ones((exists,), bool)
  return per_token(as_bools('exists', exists))


def c_rlft_weights(
  mask: Array,
  classes: Array,
  *,
  rewards: tuple[float, ...] = (1.0, 0.1),
  beta: float = 1.0,
) -> Array:
  """C-RLFT: tokens weighted by how good the source of their row is.

    w ∝ exp(r_c / β)

  The other half of the method is in the data: every class has a prompt of its
  own, and the model is used with that of the best one.

  See Wang et al., section 3 (https://arxiv.org/abs/2309.11235).

  Args:
    mask: [..., T].
    classes: int [...], which of the `rewards` a row has; [..., T] where rows
      are packed from several classes.
    rewards: the coarse reward of every class: 1 for experts' rows and 0.1 for
      others' in the paper.
    beta: the smaller, the less the worse classes count.

  Returns:
    weights [..., T] that sum to one.
  """
  mask = _as_numbers(mask)
  classes = as_integers('classes', classes)
  if classes.ndim < mask.ndim:
    classes = classes[..., None]
  rewards = jnp.asarray(rewards, float)
  share = jnp.exp((rewards - jnp.max(rewards)) / beta)[classes] * mask
  total = jnp.sum(share)
  return share / jnp.where(total > 0, total, 1.0)


def _as_numbers(mask):
  return jnp.asarray(as_bools('mask', mask), float)


def _lengths_and_count(mask, segments):
  """The tokens of every token's sequence, and the number of sequences."""
  lengths = document_sums(mask, segments)
  if segments is None:
    return lengths, jnp.sum(lengths > 0)
  # Every token of a sequence holds 1 / length of it.
  return lengths, jnp.sum(mask / jnp.maximum(lengths, 1))
