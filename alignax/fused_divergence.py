"""Losses on two distributions over the vocabulary, without holding either.

A student and its teacher give two arrays [B, T, V] of logits. As in
`fused_head`, the positions in the mask are moved together and go through both
heads in chunks, and the backward pass computes the logits again: memory is that
of one chunk, and there is no work for positions from which nothing is learned.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from alignax.fused_head import Chunks, default_chunk, row_groups
from alignax.types import Array, Metrics


class _Options(NamedTuple):
  loss: Callable
  chunk: int
  softcap: float | None
  teacher_softcap: float | None


def fused_divergence(
  loss: Callable[[Array, Array], tuple[Array, Metrics]],
  hidden: Array,
  weight: Array,
  teacher_hidden: Array,
  teacher_weight: Array,
  mask: Array,
  *,
  softcap: float | None = None,
  teacher_softcap: float | None = None,
  chunk: int | None = None,
  groups: int | None = None,
) -> tuple[Array, Metrics]:
  """A loss of student and teacher logits at the masked positions.

    L = ℓ(s(h Wᵀ), s'(h' W'ᵀ))

  Differentiable (reverse mode) in `hidden` and `weight`, by the loss alone: no
  gradient flows to the teacher or through the metrics.

  Args:
    loss: maps student and teacher logits, both [..., V] float32, to a loss and
      metrics [...]: `functools.partial(alignax.forward_kl_loss, ...)`, say.
    hidden: of the student, [..., T, D], float32 or bfloat16.
    weight: of its head, [V, D]. Where heads differ in V, by padding of their
      vocabulary, the tokens that both have count.
    teacher_hidden, teacher_weight: as those of the student; D may differ.
    mask: bool [..., T].
    softcap, teacher_softcap: as for `alignax.head_stats`.
    chunk, groups: as for `alignax.head_stats`.

  Returns:
    The loss and the metrics, [..., T] float32, zero off the mask.
  """
  chex.assert_equal_shape_prefix([hidden, teacher_hidden, mask], mask.ndim)
  size = min(weight.shape[0], teacher_weight.shape[0])
  groups = groups or row_groups(math.prod(mask.shape[:-1]))
  count = mask.size // groups
  # Both models' logits, their softmax and gradients: some four arrays at once.
  chunk = min(chunk or default_chunk(4 * size, count), count)
  grouped = lambda x: x.reshape(groups, count, *x.shape[mask.ndim :])
  found = _divergence(
    _Options(loss, chunk, softcap, teacher_softcap),
    grouped(hidden),
    weight[:size],
    grouped(teacher_hidden),
    teacher_weight[:size],
    grouped(jnp.asarray(mask, bool)),
  )
  return jax.tree.map(lambda x: x.reshape(mask.shape), found)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _divergence(options, *arrays):
  return _forward(options, *arrays)[0]


def _forward(options, *arrays):
  mask = arrays[-1]
  chunks = Chunks(options.chunk, mask)

  def one(i):
    z, _, teacher, _ = _chunk(options, chunks, arrays, i)
    return options.loss(_capped(z, options.softcap), teacher)

  def body(i, buffers):
    return jax.tree.map(lambda b, x: chunks.put(b, i, x), buffers, one(i))

  shapes = jax.eval_shape(one, 0)
  empty = jax.tree.map(lambda s: chunks.buffer((), s.dtype), shapes)
  compact = jax.lax.fori_loop(0, chunks.live, body, empty)
  return jax.tree.map(chunks.spread, compact), arrays


def _backward(options, arrays, cotangents):
  hidden, weight, *_, mask = arrays
  chunks = Chunks(options.chunk, mask)
  by_loss, _ = cotangents  # Metrics have no gradient.

  def body(i, carry):
    dhidden, dweight = carry
    z, h, teacher, weight_ = _chunk(options, chunks, arrays, i)
    loss = lambda z: options.loss(_capped(z, options.softcap), teacher)[0]
    _, pull = jax.vjp(loss, z)
    (dz,) = pull(chunks.take(by_loss, i))
    dz = dz.astype(h.dtype)
    dweight += jnp.einsum('gcv,gcd->gvd', dz, h, preferred_element_type=z.dtype)
    dh = jnp.einsum('gcv,vd->gcd', dz, weight_)
    return chunks.put(dhidden, i, dh), dweight

  wide = by_loss.dtype
  # One accumulator a group: summed across devices once, not once a chunk.
  dweight = jnp.zeros((mask.shape[0], *weight.shape), wide)
  dhidden = chunks.buffer(hidden.shape[2:], hidden.dtype)
  dhidden, dweight = jax.lax.fori_loop(0, chunks.live, body, (dhidden, dweight))
  dweight = jnp.sum(dweight, axis=0).astype(weight.dtype)
  return chunks.spread(dhidden), dweight, None, None, None


_divergence.defvjp(_forward, _backward)


def _chunk(options, chunks, arrays, i):
  """Student logits [G, c, V] before the cap, hidden, teacher logits, weight."""
  hidden, weight, teacher_hidden, teacher_weight, _ = arrays
  h, weight = chunks.take(hidden, i), weight.astype(hidden.dtype)
  teacher = _logits(
    chunks.take(teacher_hidden, i), teacher_weight.astype(teacher_hidden.dtype)
  )
  teacher = _capped(teacher, options.teacher_softcap)
  return _logits(h, weight), h, teacher, weight


def _logits(h, weight):
  wide = jnp.promote_types(h.dtype, jnp.float32)
  return jnp.einsum('gcd,vd->gcv', h, weight, preferred_element_type=wide)


def _capped(z, softcap):
  return softcap * jnp.tanh(z / softcap) if softcap else z
