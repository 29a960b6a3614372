"""The chunked divergence is that of whole logits, which it never holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alignax
from alignax.fused_divergence import fused_divergence

SHAPE, VOCABULARY = (4, 10), 19
LOSSES = {
  'forward_kl': functools.partial(alignax.forward_kl_loss, temperature=1.5),
  'reverse_kl': alignax.reverse_kl_loss,
  'generalized_jsd': functools.partial(alignax.generalized_jsd_loss, beta=0.3),
  'top 3': functools.partial(alignax.forward_kl_loss, top_k=3),
}


def make_arrays(dtype=jnp.float32, teacher_vocabulary=VOCABULARY):
  keys = jax.random.split(jax.random.key(0), 5)
  normal = lambda key, *shape: jax.random.normal(key, shape).astype(dtype)
  return [
    normal(keys[0], *SHAPE, 6),
    normal(keys[1], VOCABULARY, 6),
    normal(keys[2], *SHAPE, 8),
    normal(keys[3], teacher_vocabulary, 8),
    jax.random.bernoulli(keys[4], 0.4, SHAPE),
  ]


def whole(loss, hidden, weight, other, other_weight, mask, *, softcap=None,
          teacher_softcap=None):  # fmt: skip
  """The same from whole logits."""
  size = min(len(weight), len(other_weight))
  cap = lambda z, c: c * jnp.tanh(z / c) if c else z
  student = cap(hidden @ weight[:size].T, softcap)
  teacher = cap(other @ other_weight[:size].T, teacher_softcap)
  found = loss(student, teacher)
  return jax.tree.map(lambda x: jnp.where(mask, x, 0.0), found)


def value_and_gradient(function, arrays, **kw):
  weights = jnp.linspace(0.5, 2.0, np.prod(SHAPE)).reshape(SHAPE)

  def total(hidden, weight):
    loss, metrics = function(hidden, weight, *arrays[2:], **kw)
    return jnp.sum(weights * loss), (loss, metrics)

  run = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
  (_, found), gradient = jax.jit(run)(*arrays[:2])
  return found, gradient


def assert_close(a, b, atol=1e-5):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


@pytest.mark.parametrize('name', LOSSES)
def test_it_is_that_of_whole_logits(name):
  arrays = make_arrays()
  one = functools.partial(fused_divergence, LOSSES[name], chunk=3, groups=2)
  two = functools.partial(whole, LOSSES[name])
  found, gradient = value_and_gradient(one, arrays)
  want, wanted = value_and_gradient(two, arrays)
  assert set(found[1]) == {'distill/forward_kl', 'distill/reverse_kl'}
  assert_close(found, want)
  assert_close(gradient, wanted)
  assert np.abs(gradient[1]).max() > 1e-2


@pytest.mark.parametrize(
  'chunk, groups', [(1, 1), (7, 4), (40, 1), (None, None)]
)
def test_chunks_and_groups_change_nothing(chunk, groups):
  arrays, loss = make_arrays(), LOSSES['forward_kl']
  one = functools.partial(fused_divergence, loss, chunk=chunk, groups=groups)
  assert_close(
    value_and_gradient(one, arrays),
    value_and_gradient(functools.partial(whole, loss), arrays),
  )


def test_soft_caps_of_both():
  arrays, loss = make_arrays(), LOSSES['reverse_kl']
  caps = dict(softcap=2.0, teacher_softcap=3.0)
  one = functools.partial(fused_divergence, loss, chunk=5, **caps)
  found = value_and_gradient(one, arrays)
  two = functools.partial(whole, loss, **caps)
  assert_close(found, value_and_gradient(two, arrays))


def test_padding_of_one_vocabulary_does_not_count():
  arrays, loss = make_arrays(teacher_vocabulary=23), LOSSES['forward_kl']
  one = functools.partial(fused_divergence, loss, chunk=5)
  found = value_and_gradient(one, arrays)
  two = functools.partial(whole, loss)
  assert_close(found, value_and_gradient(two, arrays))


def test_a_teacher_like_the_student_teaches_nothing():
  hidden, weight, *_, mask = make_arrays()
  arrays = [hidden, weight, hidden, weight, mask]
  one = functools.partial(fused_divergence, LOSSES['forward_kl'], chunk=4)
  (loss, _), gradient = value_and_gradient(one, arrays)
  assert_close((loss, gradient), jax.tree.map(jnp.zeros_like, (loss, gradient)))


def test_what_is_off_the_mask_may_be_anything():
  arrays = make_arrays()
  one = functools.partial(fused_divergence, LOSSES['forward_kl'], chunk=4)
  want = value_and_gradient(one, arrays)
  off = ~arrays[-1][..., None]
  bad = [jnp.where(off, jnp.nan, arrays[i]) for i in (0, 2)]
  found = value_and_gradient(one, [bad[0], arrays[1], bad[1], *arrays[3:]])
  assert_close(found, want)
  nothing = [*arrays[:-1], jnp.zeros(SHAPE, bool)]
  found = value_and_gradient(one, nothing)
  assert_close(found, jax.tree.map(jnp.zeros_like, found))


def test_bfloat16_in_float32_out():
  arrays = make_arrays(jnp.bfloat16)
  one = functools.partial(fused_divergence, LOSSES['forward_kl'], chunk=4)
  (loss, metrics), gradient = value_and_gradient(one, arrays)
  assert {x.dtype for x in (loss, *metrics.values())} == {jnp.dtype('float32')}
  assert {x.dtype for x in gradient} == {jnp.dtype('bfloat16')}


def all_shapes(jaxpr):
  for equation in jaxpr.eqns:
    yield from (tuple(v.aval.shape) for v in equation.outvars)
    for value in equation.params.values():
      for inner in jax.tree.leaves(value, is_leaf=lambda x: hasattr(x, 'eqns')):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from all_shapes(inner)


@pytest.mark.parametrize('function, holds', [
  (functools.partial(fused_divergence, chunk=4), False), (whole, True),
])  # fmt: skip
def test_whole_logits_are_never_held(function, holds):
  """No array of as many elements as there are positions times tokens."""
  arrays = make_arrays()

  def total(hidden, weight):
    loss, _ = function(LOSSES['forward_kl'], hidden, weight, *arrays[2:])
    return jnp.sum(loss)

  run = jax.grad(total, argnums=(0, 1))
  shapes = all_shapes(jax.make_jaxpr(run)(*arrays[:2]).jaxpr)
  largest = max(np.prod(s) for s in shapes)
  assert (largest >= np.prod(SHAPE) * VOCABULARY) == holds
