"""Schedules, what decays, and that every optimiser goes downhill."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds

from alignax import optim

NAMES = ('adamw', 'adafactor', 'lion', 'muon', 'sgd')


def rates(steps=12, total=10, **kw):
  schedule = optim.make_schedule(learning_rate=1.0, total_steps=total, **kw)
  return np.array([schedule(step) for step in range(steps)])


def params():
  """A stacked, untied transformer with every kind of leaf there is."""
  model = worlds.make_model(tie_embeddings=False, qkv_bias=True, qk_norm=True)
  found = model.init(jax.random.key(0))
  head = {'kernel': jnp.ones(16), 'bias': jnp.zeros(())}
  return {'policy': found | {'value_head': head}}


def flat(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
  return {name(path): leaf for path, leaf in leaves}


class TestSchedules:
  def test_the_first_update_of_a_warm_up_is_not_of_size_zero(self):
    found = rates(schedule='constant', warmup_steps=4)
    np.testing.assert_allclose(found[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found[5:], 1.0)

  def test_cosine_ends_at_its_final_fraction(self):
    found = rates(final_fraction=0.1)
    np.testing.assert_allclose(found[[0, 5, 10, 11]], [1, 0.55, 0.1, 0.1])

  def test_linear(self):
    found = rates(schedule='linear', warmup_steps=2)
    np.testing.assert_allclose(found[2:11], np.linspace(1, 0, 9), atol=1e-6)

  def test_rsqrt_falls_as_the_root(self):
    found = rates(schedule='rsqrt', warmup_steps=4, steps=17)
    np.testing.assert_allclose(found[4], 1.0)
    np.testing.assert_allclose(found[16], 0.5)

  def test_wsd_is_constant_then_falls(self):
    found = rates(schedule='wsd', warmup_steps=2, decay_steps=4)
    np.testing.assert_allclose(found[2:7], 1.0)
    np.testing.assert_allclose(found[6:11], [1, 0.75, 0.5, 0.25, 0], atol=1e-6)

  def test_an_unknown_schedule_lists_those_there_are(self):
    with pytest.raises(ValueError, match="'cosin'; there are .*'cosine'"):
      rates(schedule='cosin')


class TestDecay:
  def test_matrices_decay_and_norms_and_biases_do_not(self):
    decays = flat(optim.decay_mask(params()))
    for name, does in decays.items():
      matrix = name.endswith(('/kernel', '/embedding'))
      assert does == matrix, name
    assert any(decays.values()) and not all(decays.values())

  @pytest.mark.parametrize('name', NAMES)
  def test_without_a_gradient_only_what_decays_moves(self, name):
    before = jax.tree.map(jnp.ones_like, params())
    tx = optim.make_optimizer(
      total_steps=10, name=name, learning_rate=0.1, weight_decay=0.5,
      schedule='constant',
    )  # fmt: skip
    zeros = jax.tree.map(jnp.zeros_like, before)
    updates, _ = tx.update(zeros, tx.init(before), before)
    for path, update in flat(updates).items():
      if path.endswith(('/kernel', '/embedding')):
        assert np.all(np.asarray(update) < 0), path
      else:
        np.testing.assert_allclose(update, 0.0, atol=1e-6, err_msg=path)


@pytest.mark.parametrize('name', NAMES)
def test_every_optimiser_goes_downhill(name):
  start = params()
  goal = jax.tree.map(lambda x: x + 0.1 * jnp.sign(x) + 0.05, start)
  tx = optim.make_optimizer(
    total_steps=20, name=name, learning_rate=1e-2, schedule='constant'
  )

  def loss(tree):
    errors = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), tree, goal)
    return sum(jax.tree.leaves(errors))

  @jax.jit
  def step(tree, state):
    updates, state = tx.update(jax.grad(loss)(tree), state, tree)
    return optax.apply_updates(tree, updates), state

  tree, state = start, tx.init(start)
  for _ in range(5):
    tree, state = step(tree, state)
  assert loss(tree) < 0.98 * loss(start)
  for path, x in flat(tree).items():
    assert np.all(np.isfinite(x)), path
    assert np.any(np.asarray(x) != np.asarray(flat(start)[path])), path


def test_muon_takes_every_kernel_of_a_layer_as_matrices():
  """An update of Muon is orthogonal: its singular values are alike."""
  start = params()
  tx = optim.make_optimizer(
    total_steps=10, name='muon', learning_rate=1.0, schedule='constant',
    clip_norm=0.0,
  )  # fmt: skip
  keys = iter(jax.random.split(jax.random.key(1), 100))
  noise = lambda x: jax.random.normal(next(keys), x.shape)
  updates, _ = tx.update(jax.tree.map(noise, start), tx.init(start), start)
  layers = updates['policy']['layers']
  found = {k: v for k, v in flat(layers).items() if k.endswith('kernel')}
  assert len(found) == 7
  for name, update in found.items():
    outputs = update.shape[-1:] if 'out' in name else update.shape[2:]
    matrices = np.asarray(update).reshape(2, -1, int(np.prod(outputs)))
    values = np.linalg.svd(matrices, compute_uv=False)
    assert values.min() > 0.4 * values.max(), name


def test_gradients_are_clipped_by_their_global_norm():
  tx = optim.make_optimizer(
    total_steps=10, name='sgd', learning_rate=1.0, schedule='constant', b1=0.0,
    clip_norm=1.0,
  )  # fmt: skip
  tree = {'a': {'kernel': jnp.array([3.0])}, 'b': {'kernel': jnp.array([4.0])}}
  updates, _ = tx.update(tree, tx.init(tree), tree)
  np.testing.assert_allclose(updates['a']['kernel'], -0.6, rtol=1e-6)


def test_an_unknown_optimiser_lists_those_there_are():
  with pytest.raises(ValueError, match="'adam'; there are .*'adamw'"):
    optim.make_optimizer(total_steps=1, name='adam')
