"""The fused head against plain logits."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import alignax as ax
from alignax import fused_head

D, V = 6, 11
SHAPE = (3, 2, 9)
RNG = np.random.default_rng(0)


def random(*shape):
  return jnp.asarray(RNG.normal(size=shape), jnp.float32)


HIDDEN, WEIGHT = random(*SHAPE, D), random(V, D)
TARGETS = RNG.integers(0, V, SHAPE)
MASK = RNG.random(SHAPE) > 0.5
MASK[0, 0] = False
COTANGENTS = ax.HeadStats(*random(4, *SHAPE))
VARIANTS = {
  'plain': {},
  'softcap': {'softcap': 3.0, 'temperature': 0.7},
  'rows': {'temperature': np.linspace(0.5, 2, 6).reshape(3, 2, 1)},
}


def total(stats):
  return sum(jnp.sum(c * x) for c, x in zip(COTANGENTS, stats))


def naive(hidden, weight, *, temperature=1.0, softcap=None):
  logits = hidden @ weight.T
  if softcap:
    logits = softcap * jnp.tanh(logits / softcap)
  logits = logits / jnp.asarray(temperature, jnp.float32)[..., None]
  stats = ax.logit_stats(logits, TARGETS)
  return jax.tree.map(lambda x: jnp.where(MASK, x, 0.0), stats)


def fused(hidden, weight, **kw):
  kw = {'chunk': 4, 'mean_logps': True, 'entropy': True} | kw
  return ax.head_stats(hidden, weight, TARGETS, MASK, **kw)


def with_gradients(fn, *args):
  def loss(*args):
    stats = fn(*args)
    return total(stats), stats

  return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(*args)


@pytest.mark.parametrize('name', VARIANTS)
def test_all_statistics_and_their_gradients(name):
  kw = VARIANTS[name]
  expected = with_gradients(functools.partial(naive, **kw), HIDDEN, WEIGHT)
  found = with_gradients(functools.partial(fused, **kw), HIDDEN, WEIGHT)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('chunk, groups', [(5, 2), (100, 1), (None, 3)])
def test_chunks_and_groups_change_nothing(chunk, groups):
  found = fused(HIDDEN, WEIGHT, chunk=chunk, groups=groups)
  for a, b in zip(found, naive(HIDDEN, WEIGHT)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_padding_may_hold_anything():
  hidden = jnp.where(MASK[..., None], HIDDEN, jnp.nan)
  found = with_gradients(fused, hidden, WEIGHT)
  expected = with_gradients(fused, HIDDEN, WEIGHT)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_array_equal(a, b)


def test_nothing_to_learn():
  run = jax.value_and_grad(
    lambda h, w: jnp.sum(
      ax.fused_logps(h, w, TARGETS, np.zeros(SHAPE, bool), chunk=4)
    ),
    (0, 1),
  )
  loss, gradients = run(HIDDEN, WEIGHT)
  assert loss == 0
  assert all(not np.any(g) for g in gradients)


def test_extreme_logits():
  loss = lambda h, w: jnp.sum(fused(h, w).logps)
  value, gradients = jax.value_and_grad(loss, (0, 1))(1e4 * HIDDEN, WEIGHT)
  assert np.isfinite(value)
  assert all(np.all(np.isfinite(g)) for g in gradients)


def test_bfloat16():
  hidden = HIDDEN.astype(jnp.bfloat16)
  loss = lambda h, w: total(fused(h, w))
  stats = fused(hidden, WEIGHT)
  assert all(x.dtype == jnp.float32 for x in stats)
  dh, dw = jax.grad(loss, (0, 1))(hidden, WEIGHT)
  assert dh.dtype == jnp.bfloat16 and dw.dtype == jnp.float32
  for a, b in zip(stats, naive(HIDDEN, WEIGHT)):
    np.testing.assert_allclose(a, b, atol=0.05)
  np.testing.assert_allclose(dw, jax.grad(loss, 1)(HIDDEN, WEIGHT), atol=0.2)


def test_work_is_that_of_the_masked_positions():
  mask = np.zeros((2, 40), bool)
  for masked, chunks in ((0, 0), (1, 1), (8, 1), (9, 2), (40, 5)):
    mask[0, 40 - masked :] = True
    assert fused_head.Chunks(8, jnp.asarray(mask)).live == chunks


def test_no_array_of_all_logits():
  tokens, vocabulary = 512, 4096
  args = (
    jax.ShapeDtypeStruct((4, tokens, 8), jnp.float32),
    jax.ShapeDtypeStruct((vocabulary, 8), jnp.float32),
    jax.ShapeDtypeStruct((4, tokens), jnp.int32),
    jax.ShapeDtypeStruct((4, tokens), jnp.bool_),
  )
  loss = lambda *args: jnp.sum(ax.fused_logps(*args, chunk=64, groups=1))
  compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*args).compile()
  logits = 4 * 4 * tokens * vocabulary
  assert compiled.memory_analysis().temp_size_in_bytes < logits / 4


@pytest.mark.parametrize('dims', [(8, 1, 1), (2, 2, 2)])
def test_sharded(dims):
  mesh = jax.make_mesh(
    dims, ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3
  )
  place = lambda x, *spec: jax.device_put(
    x, NamedSharding(mesh, PartitionSpec(*spec))
  )
  rows = ('data', 'fsdp')
  hidden, weight = random(8, 2, 32, 16), random(64, 16)
  targets = RNG.integers(0, 64, (8, 2, 32))
  mask = RNG.random((8, 2, 32)) > 0.5
  run = jax.value_and_grad(
    lambda *args: jnp.sum(ax.fused_logps(*args, chunk=8)), (0, 1)
  )
  expected = run(hidden, weight, targets, mask)
  args = (
    place(hidden, rows),
    place(weight, 'tensor', 'fsdp'),
    place(targets, rows),
    place(mask, rows),
  )
  with jax.set_mesh(mesh):
    compiled = jax.jit(run).lower(*args).compile()
    found = compiled(*args)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  # Positions stay where they are: only the weight is gathered, and once.
  for shape in re.findall(r'= (\S+) all-gather\(', compiled.as_text()):
    assert shape.startswith('f32[') and ',32,16]' not in shape
    assert '64,16]' in shape or '32,16]' in shape
  assert not re.search(
    r' (all-to-all|collective-permute)\(', compiled.as_text()
  )
