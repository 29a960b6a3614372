"""Relative change of weights: by part, scale-free, exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_worlds as tiny

from alignax.evals import drift


@pytest.fixture(scope='module')
def params():
  return tiny.make_params(tiny.make_model(), value_head=True)


def test_nothing_moved(params):
  found = jax.jit(drift.by_layer)(params, params)
  assert set(found) == {'layer_00', 'layer_01', 'embed', 'norm', 'all'}
  assert all(float(x) == 0 for x in found.values())


def test_each_layer_by_itself(params):
  moved = dict(params)
  moved['layers'] = jax.tree.map(
    lambda x: x * jnp.array([1.5, 0.75]).reshape(-1, *[1] * (x.ndim - 1)),
    params['layers'],
  )
  found = jax.jit(drift.by_layer)(moved, params)
  assert float(found['layer_00']) == pytest.approx(0.5, rel=1e-5)
  assert float(found['layer_01']) == pytest.approx(0.25, rel=1e-5)
  assert float(found['embed']) == 0


def test_all_is_the_norm_over_all_weights(params):
  rng = np.random.default_rng(0)
  moved = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape), params)
  found = drift.by_layer(moved, params)
  flat = lambda tree: np.concatenate(
    [np.ravel(x) for k, v in tree.items() if k != 'value_head'
     for x in jax.tree.leaves(v)]
  )  # fmt: skip
  expected = np.linalg.norm(flat(moved) - flat(params))
  expected /= np.linalg.norm(flat(params))
  assert float(found['all']) == pytest.approx(expected, rel=1e-5)


def test_low_precision_is_summed_in_float32(params):
  low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  moved = jax.tree.map(lambda x: x * 2, low)
  found = drift.by_layer(moved, low)
  assert all(x.dtype == jnp.float32 for x in found.values())
  assert float(found['all']) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize('sizes', tiny.MESHES)
def test_sharded_is_unsharded(params, sizes):
  mesh = tiny.make_mesh(sizes)
  moved = jax.tree.map(lambda x: x * 1.25 + 0.01, params)
  alone = drift.by_layer(moved, params)
  with jax.set_mesh(mesh):
    placed = tiny.place(mesh, moved), tiny.place(mesh, params)
    found = jax.jit(drift.by_layer)(*placed)
  tiny.assert_trees_close(found, alone, rtol=1e-5)
