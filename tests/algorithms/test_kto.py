"""KTO and BCO: their losses by hand, and what they compare responses with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds
import toy_models as toys

from alignax import train
from alignax.algorithms import kto

KEY = jax.random.key(0)
BATCH = worlds.unpaired()
sigmoid = lambda x: 1 / (1 + np.exp(-x))


@pytest.fixture(scope='module')
def model():
  return worlds.make_model()


@pytest.fixture(scope='module')
def params(model):
  return {
    'policy': worlds.make_params(model, 0), 'ref': worlds.make_params(model, 1)
  }  # fmt: skip


@pytest.fixture(scope='module')
def log_ratios(model, params):
  """Of own and of mismatched responses, [B]."""
  read = jax.jit(lambda params, batch: model.logps(params, batch).sum(-1))
  return [
    np.asarray(read(params['policy'], batch) - read(params['ref'], batch))
    for batch in (BATCH, BATCH['mismatched'])
  ]


def evaluate(model, params, batch=BATCH, **kw):
  run = kto.make_eval({'policy': model}, **kw)
  frozen = {'ref': params['ref']}
  return run({'policy': params['policy']}, frozen, batch, KEY)


def run_step(model, params, batch=BATCH, *, tx=None, state=None, **kw):
  tx = tx or optax.sgd(0.1)
  step = kto.make_step({'policy': model}, tx, **kw)
  if state is None:
    state = train.init_state(
      {'policy': jax.tree.map(jnp.array, params['policy'])},
      tx,
      extra=kto.init_extra(**kw),
    )
  return step(state, {'ref': params['ref']}, batch, KEY)


class TestLoss:
  good = BATCH['desirable'][:, 0]

  def test_kto_by_hand(self, model, params, log_ratios):
    own, others = log_ratios
    z = max(others.mean(), 0)
    assert z > 0.1  # Else the test would not see it.
    want = np.where(
      self.good, 1.5 * sigmoid(-0.1 * (own - z)), sigmoid(-0.1 * (z - own))
    )
    found = evaluate(model, params, desirable_weight=1.5)
    assert float(found['loss']) == pytest.approx(want.mean(), abs=1e-5)
    assert float(found['policy/kl']) == pytest.approx(z, rel=1e-4)

  def test_a_negative_estimate_counts_as_zero(self, model, params, log_ratios):
    swapped = {'policy': params['ref'], 'ref': params['policy']}
    assert log_ratios[1].mean() > 0
    found = evaluate(model, swapped)
    assert float(found['policy/kl']) == 0
    plain = evaluate(model, swapped, loss='apo_zero_unpaired')
    assert float(found['loss']) == pytest.approx(float(plain['loss']))

  def test_bco_by_hand(self, model, params, log_ratios):
    rewards = 0.2 * log_ratios[0]
    gain = np.where(self.good, 1, -1) * (rewards - rewards.mean())
    found = evaluate(model, params, loss='bco', beta=0.2)
    want = np.log1p(np.exp(-gain)).mean()
    assert float(found['loss']) == pytest.approx(want, abs=1e-5)

  def test_stored_reference_log_probs_serve_what_needs_no_others(
    self, model, params
  ):
    stored = kto.reference_logps(model)(params['ref'], BATCH)
    batch = BATCH | {'ref_logps': stored}
    for loss in ('bco', 'apo_zero_unpaired'):
      live = evaluate(model, params, loss=loss)
      run = kto.make_eval({'policy': model}, loss=loss)
      found = run({'policy': params['policy']}, {}, batch, KEY)
      assert float(found['loss']) == pytest.approx(float(live['loss']))
    run = kto.make_eval({'policy': model})
    with pytest.raises(ValueError, match='precompute_ref'):
      run({'policy': params['policy']}, {}, batch, KEY)

  def test_losses_that_take_something_else_are_not_offered(self):
    with pytest.raises(ValueError, match='are apo_zero_unpaired, bco, kto'):
      kto.make_loss(None, loss='dpo')


@pytest.mark.slow
class TestWholeBatch:
  @pytest.mark.parametrize('loss', ['kto', 'bco'])
  def test_parts_add_up(self, model, params, loss):
    one, row = run_step(model, params, loss=loss)
    two, other = run_step(model, params, loss=loss, microbatches=4)
    worlds.assert_trees_close(one.params, two.params, atol=2e-5)
    worlds.assert_trees_close(row, other, atol=2e-5, rtol=1e-4)

  def test_no_gradient_flows_to_the_reference_point(
    self, model, params, log_ratios
  ):
    own = {k: v for k, v in BATCH.items() if k != 'mismatched'}
    z = max(log_ratios[1].mean(), 0)
    fixed = own | {'anchor': jnp.full(8, z)}

    @jax.jit
    @jax.grad
    def gradient(policy):
      terms = kto.make_loss(model)(
        {'policy': policy}, {'ref': params['ref']}, fixed, KEY
      )
      return train.weighted_sum(terms, kto.weigh(fixed))[0]

    state, _ = run_step(model, params, tx=optax.sgd(1.0))
    want = jax.tree.map(
      jnp.subtract, params['policy'], gradient(params['policy'])
    )
    worlds.assert_trees_close(state.params['policy'], want, atol=2e-5)

  def test_responses_that_are_not_there_do_not_count(self, model, params):
    half = jax.tree.map(lambda x: x[:4], BATCH)
    absent = jax.tree.map(np.zeros_like, half)
    padded = jax.tree.map(lambda *x: np.concatenate(x), half, absent)
    for loss in ('kto', 'bco'):
      one = evaluate(model, params, half, loss=loss)
      two = evaluate(model, params, padded, loss=loss)
      worlds.assert_trees_close(one, two, atol=1e-5)

  @pytest.mark.parametrize('loss', ['bco', 'apo_zero_unpaired'])
  def test_packed_responses_are_the_responses(self, loss):
    """Of KTO too, but for which pairs are mismatched."""
    alone, packed = (
      toys.comparisons('unpaired', candidates=1, packing=packing)
      for packing in (False, True)
    )
    assert packed['examples'].sum(1).max() > 1
    run = kto.make_eval({'policy': toys.Bigram()}, loss=loss)
    one, two = (
      run({'policy': toys.table(0)}, {'ref': toys.table(1)}, batch, KEY)
      for batch in (alone, packed)
    )
    worlds.assert_trees_close(one, two, atol=1e-5)

  def test_without_any_mismatched_pair_the_point_is_zero(self, model, params):
    none = {'examples': np.zeros((8, 1), bool)}
    batch = BATCH | {'mismatched': BATCH['mismatched'] | none}
    found = evaluate(model, params, batch)
    assert float(found['policy/kl']) == 0


class TestRunningMean:
  @pytest.mark.slow
  def test_it_is_of_all_responses_so_far(self, model, params):
    kw = dict(loss='bco', beta=0.3, tx=optax.sgd(0.5))
    state, rewards, count = None, 0.0, 0
    for seed in range(3):
      batch = worlds.unpaired(batch=4 + 2 * seed, seed=seed)
      state, row = run_step(model, params, batch, state=state, **kw)
      number = 4 + 2 * seed
      # A step's own rewards count in it, under the policy before its update.
      rewards += float(row['rewards/reward']) * number
      count += number
      mean = rewards / count
      assert float(row['rewards/delta']) == pytest.approx(mean, rel=1e-4)
    assert float(state.extra['responses']) == count

  @pytest.mark.slow
  def test_a_skipped_update_leaves_it(self, model, params):
    bad = jax.tree.map(lambda x: x * np.nan, params['ref'])
    state, _ = run_step(model, params, loss='bco')
    before = float(state.extra['delta'])
    state, row = run_step(
      model, {**params, 'ref': bad}, loss='bco', state=state
    )
    assert float(row['skipped']) == 1
    assert float(state.extra['delta']) == before
    assert float(state.extra['responses']) == 8

  def test_kto_carries_nothing(self):
    assert kto.init_extra() == {}
    assert kto.batch_kw() == {'mismatched': True}
    assert kto.batch_kw(loss='bco') == {'mismatched': False}
