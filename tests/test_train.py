"""The train step on a model of one matrix, where everything can be checked."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignax import sharding, train, weights

KEY = jax.random.key(3)


def make_batch(rows=8, seed=0, length=6):
  """Rows of uneven masks, one of them empty."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, length + 1, rows)
  lengths[1] = 0
  return {
    'x': rng.normal(size=(rows, length, 3)).astype(np.float32),
    'y': rng.normal(size=(rows, length)).astype(np.float32),
    'mask': np.arange(length) < lengths[:, None],
  }


def make_params():
  return {'policy': {'kernel': jnp.arange(3.0) / 10, 'bias': jnp.float32(0.1)}}


def errors(params, batch):
  predicted = batch['x'] @ params['policy']['kernel']
  return predicted + params['policy']['bias'] - batch['y']


def loss_fn(params, frozen, batch, key):
  del frozen, key
  error = errors(params, batch)
  return {'fit': (error**2, {'error': error})}


def weigh(batch):
  return {'fit': weights.per_token(batch['mask'])}


def run(step, state, batches, frozen=None, key=KEY):
  rows = []
  for batch in batches:
    state, metrics = step(state, frozen or {}, batch, key)
    rows.append(jax.device_get(metrics))
  return state, rows


def assert_equal(a, b, atol=0.0):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b
  )


def copy(tree):
  return jax.tree.map(np.array, tree)


@pytest.fixture(scope='module')
def one_step():
  """The compiled step that most tests share, and its optimiser."""
  tx = optax.adam(1e-2)
  return train.make_train_step(loss_fn, tx, weigh=weigh), tx


class TestMicrobatches:
  @pytest.mark.parametrize('parts', [2, 4])
  def test_parts_add_up_to_the_batch(self, one_step, parts):
    step, tx = one_step
    batches = [make_batch(seed=seed) for seed in range(3)]
    whole, rows = run(step, train.init_state(make_params(), tx), batches)
    cut = train.make_train_step(loss_fn, tx, weigh=weigh, microbatches=parts)
    other, others = run(cut, train.init_state(make_params(), tx), batches)
    assert_equal(whole.params, other.params, atol=2e-5)
    assert_equal(whole.opt_state, other.opt_state, atol=2e-5)
    assert_equal(rows, others, atol=2e-5)

  def test_the_loss_is_the_mean_over_tokens_of_the_whole_batch(self, one_step):
    step, tx = one_step
    batch = make_batch()
    _, (metrics,) = run(step, train.init_state(make_params(), tx), [batch])
    error = np.asarray(errors(make_params(), batch))[batch['mask']]
    np.testing.assert_allclose(metrics['loss'], np.mean(error**2), rtol=1e-5)
    np.testing.assert_allclose(metrics['error'], np.mean(error), rtol=1e-4)

  def test_a_batch_that_does_not_split_is_refused(self):
    with pytest.raises(ValueError, match='8 rows does not split into 3'):
      train.split(make_batch(), 3)

  def test_split_deals_rows_out_whole(self):
    rows = {'a': np.arange(8), 'b': np.arange(16).reshape(8, 2)}
    parts = train.split(rows, 4)
    assert parts['a'].shape == (4, 2)
    np.testing.assert_array_equal(parts['b'][..., 0], 2 * parts['a'])


class TestTerms:
  def two(self, params, frozen, batch, key):
    del frozen, key
    error = errors(params, batch)
    size = jnp.sum(params['policy']['kernel'] ** 2)
    return {
      'fit': (error**2, {}),
      'size': (jnp.full(batch['rows'].shape, size), {'kernel': batch['rows']}),
    }

  def weigh(self, batch):
    return weigh(batch) | {'size': jnp.full(batch['rows'].shape, 1 / 4)}

  def test_terms_of_different_shapes_add_up(self):
    batch = make_batch() | {'rows': np.ones(8, np.float32)}
    state = train.init_state(make_params(), optax.sgd(0.1))
    found = []
    for parts in (1, 2):
      update = train.make_update(self.two, optax.sgd(0.1), microbatches=parts)
      found.append(update(state, {}, batch, self.weigh(batch), KEY))
    (one, metrics), (two, _) = found
    assert_equal(one.params, two.params, atol=1e-6)
    total = metrics['loss/fit'] + metrics['loss/size']
    np.testing.assert_allclose(metrics['loss'], total, rtol=1e-6)
    np.testing.assert_allclose(metrics['loss/size'], 2 * 0.05, rtol=1e-5)
    assert metrics['kernel'] == 2.0

  def test_terms_without_weights_are_refused(self):
    state = train.init_state(make_params(), optax.sgd(0.1))
    update = train.make_update(self.two, optax.sgd(0.1))
    batch = make_batch() | {'rows': np.ones(8, np.float32)}
    with pytest.raises(ValueError, match=r"terms \['fit', 'size'\]"):
      update(state, {}, batch, weigh(batch), KEY)

  def test_entries_of_weight_zero_may_hold_anything(self, one_step):
    step, tx = one_step
    clean = make_batch()
    dirty = clean | {'y': np.where(clean['mask'], clean['y'], np.inf)}

    def loss_of_masked(params, frozen, batch, key):
      y = jnp.where(batch['mask'], batch['y'], 0)
      (loss, metrics), = loss_fn(params, frozen, batch | {'y': y}, key).values()
      nothing = jnp.where(batch['mask'], 0, batch['y'])
      return {'fit': (loss + nothing, metrics)}

    update = train.make_train_step(loss_of_masked, tx, weigh=weigh)
    state, rows = run(update, train.init_state(make_params(), tx), [dirty])
    want, wanted = run(step, train.init_state(make_params(), tx), [clean])
    assert_equal(state.params, want.params, atol=1e-7)
    assert rows[0]['loss'] == pytest.approx(wanted[0]['loss'], rel=1e-6)


class TestSkipping:
  @pytest.mark.parametrize('bad', [np.nan, np.inf])
  def test_a_loss_that_is_not_finite_changes_nothing(self, bad):
    tx = optax.adam(1e-2)
    step = train.make_train_step(loss_fn, tx, weigh=weigh, ema_decay=0.5)
    state = train.init_state(make_params(), tx, ema=True)
    state, _ = run(step, state, [make_batch(seed=1)])
    before = copy(state)
    poisoned = make_batch(seed=2)
    poisoned['y'][0, 0] = bad
    state, (metrics,) = run(step, state, [poisoned])
    for part in ('params', 'opt_state', 'ema'):
      assert_equal(getattr(before, part), getattr(state, part))
    assert metrics['skipped'] == 1 and metrics['skipped_in_a_row'] == 1
    assert int(state.step) == 2 and int(state.skipped_total) == 1

  def test_a_gradient_that_is_not_finite_is_skipped_too(self):
    def loss_fn(params, frozen, batch, key):
      # Finite (0), but with an infinite slope.
      loss = jnp.sqrt(params['policy']['bias'] - 0.1) + 0 * batch['y']
      return {'fit': (loss, {})}

    tx = optax.sgd(0.1)
    step = train.make_train_step(loss_fn, tx, weigh=weigh)
    state = train.init_state(make_params(), tx)
    state, (metrics,) = run(step, state, [make_batch()])
    assert np.isfinite(metrics['loss']) and metrics['skipped'] == 1
    assert_equal(state.params, make_params())

  def test_the_row_of_skipped_updates_ends_with_a_good_one(self, one_step):
    step, tx = one_step
    good, bad = make_batch(), make_batch()
    bad['y'][0, 0] = np.nan
    state = train.init_state(make_params(), tx)
    state, rows = run(step, state, [bad, bad, good, bad])
    assert [row['skipped_in_a_row'] for row in rows] == [1, 2, 0, 1]
    assert int(state.skipped_total) == 3


def test_the_average_follows_the_parameters():
  tx = optax.sgd(0.1)
  step = train.make_train_step(loss_fn, tx, weigh=weigh, ema_decay=0.9)
  state = train.init_state(make_params(), tx, ema=True)
  average = copy(make_params())
  for seed in range(3):
    state, _ = run(step, state, [make_batch(seed=seed)])
    average = jax.tree.map(
      lambda a, p: 0.9 * a + 0.1 * np.asarray(p), average, state.params
    )
  assert_equal(state.ema, average, atol=1e-6)


def test_two_steps_never_draw_the_same():
  def loss_fn(params, frozen, batch, key):
    noise = jax.random.normal(key, batch['y'].shape)
    loss = errors(params, batch) ** 2 + noise
    return {'fit': (loss, {'noise': noise})}

  tx = optax.sgd(0.0)
  step = train.make_train_step(loss_fn, tx, weigh=weigh, microbatches=2)
  state = train.init_state(make_params(), tx)
  _, rows = run(step, state, [make_batch()] * 4)
  assert len({float(row['noise']) for row in rows}) == 4
  _, other = run(
    step, train.init_state(make_params(), tx), [make_batch()],
    key=jax.random.key(4),
  )  # fmt: skip
  assert other[0]['noise'] != rows[0]['noise']


def test_microbatches_draw_different_noise():
  def loss_fn(params, frozen, batch, key):
    drawn = jnp.full(batch['y'].shape, jax.random.uniform(key))
    return {'fit': (errors(params, batch) ** 2, {'a': drawn, 'b': drawn**2})}

  tx = optax.sgd(0.0)
  step = train.make_train_step(loss_fn, tx, weigh=weigh, microbatches=4)
  _, (row,) = run(step, train.init_state(make_params(), tx), [make_batch()])
  assert row['b'] - row['a'] ** 2 > 1e-4  # The variance over parts.


def test_the_step_by_pmap_is_the_step_by_jit(one_step):
  step, tx = one_step
  batches = [make_batch(16, seed=seed) for seed in range(3)]
  want, wanted = run(step, train.init_state(make_params(), tx), batches)
  update = train.make_update(loss_fn, tx, axis_name='devices')
  on_all = sharding.pmap_step(update, weigh)
  n = jax.local_device_count()
  state = jax.tree.map(
    lambda x: np.stack([x] * n), copy(train.init_state(make_params(), tx))
  )
  state, rows = run(on_all, state, batches)
  first = jax.tree.map(lambda x: x[0], state.params)
  assert_equal(want.params, first, atol=2e-5)
  assert_equal([w['loss'] for w in wanted], [r['loss'] for r in rows], 2e-5)
  last = jax.tree.map(lambda x: x[-1], state.params)
  assert_equal(first, last)


def test_the_state_is_donated(one_step):
  step, tx = one_step
  state = train.init_state(make_params(), tx)
  step(state, {}, make_batch(), KEY)
  assert all(x.is_deleted() for x in jax.tree.leaves(state.params))
  assert all(x.is_deleted() for x in jax.tree.leaves(state.opt_state))


class TestEval:
  def test_metrics_are_exact_means_however_the_parts_differ(self):
    batch = make_batch(12)
    error = np.asarray(errors(make_params(), batch))[batch['mask']]
    for parts in (1, 3):
      evaluate = train.make_eval(loss_fn, weigh=weigh, microbatches=parts)
      metrics = evaluate(make_params(), {}, batch, KEY)
      np.testing.assert_allclose(metrics['loss'], np.mean(error**2), rtol=1e-5)
      np.testing.assert_allclose(metrics['error'], np.mean(error), rtol=1e-4)

  def test_rows_add_up_in_their_own_order(self):
    batch = make_batch(12)
    by_row = train.make_eval(
      loss_fn, weigh=weigh, microbatches=3, by_row=True
    )(make_params(), {}, batch, KEY)
    share = batch['mask'] / batch['mask'].sum()
    want = np.sum(np.asarray(errors(make_params(), batch)) ** 2 * share, axis=1)
    np.testing.assert_allclose(by_row['loss'], want, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(by_row['weight'], share.sum(1), rtol=1e-6)
