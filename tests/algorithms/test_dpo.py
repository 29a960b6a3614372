"""DPO: closed form on two arms, packing, and where the reference comes from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds

from alignax import data, train
from alignax.algorithms import dpo

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Arms:
  """A response is one token, drawn from one distribution."""

  def logps(self, params, batch):
    logps = jax.nn.log_softmax(params['arms'])[batch['targets']]
    return jnp.where(batch['mask'], logps, 0.0)


def arm_pairs(wins):
  """A pair for every comparison of arms 0 and 1; `wins` says who won."""
  chosen = np.where(wins, 0, 1)
  targets = np.stack([chosen, 1 - chosen], axis=1)[..., None]
  return {
    'targets': targets,
    'inputs': np.zeros_like(targets),
    'segments': np.ones_like(targets),
    'mask': np.ones(targets.shape, bool),
    'examples': np.ones((len(wins), 1), bool),
  }


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_two_arms_reach_the_closed_form(smoothing):
  """β (log π(0)/π(1) - log ref(0)/ref(1)) = logit P(0 is preferred)."""
  share, beta = 0.75, 0.5
  batch = arm_pairs(np.arange(32) < share * 32)
  ref = {'arms': jnp.array([0.3, -0.2])}
  tx = optax.adam(0.05)
  step = dpo.make_step(
    {'policy': Arms()}, tx, beta=beta, label_smoothing=smoothing
  )
  start = {'policy': {'arms': jnp.array([0.3, -0.2])}}
  state = train.init_state(start, tx)
  for _ in range(400):
    state, metrics = step(state, {'ref': ref}, batch, KEY)
  arms = state.params['policy']['arms']
  margin = beta * ((arms[0] - arms[1]) - 0.5)
  # Smoothed labels are those of annotators who err that much more often.
  p = share * (1 - smoothing) + (1 - share) * smoothing
  assert float(margin) == pytest.approx(np.log(p / (1 - p)), abs=1e-2)
  assert float(metrics['rewards/accuracy']) == pytest.approx(share)


@pytest.fixture(scope='module')
def model():
  return worlds.make_model()


@pytest.fixture(scope='module')
def params(model):
  return {
    'policy': worlds.make_params(model, 0), 'ref': worlds.make_params(model, 1)
  }  # fmt: skip


def make_examples(number=6, seed=0):
  """Pairs short enough that several fit in a row."""
  rng = np.random.default_rng(seed)
  found = []
  for row in range(number):
    prompt = rng.integers(1, 32, 2)
    tokens = [
      np.concatenate([prompt, rng.integers(1, 32, rng.integers(2, 5))])
      for _ in range(2)
    ]
    learned = [np.arange(len(t)) >= 2 for t in tokens]
    found.append(
      data.Example(
        tuple(t.astype(np.int32) for t in tokens), tuple(learned), row
      )
    )
  return data.Examples(found, kind='pairs')


def one_batch(examples, length, packing):
  return data.Batches(
    examples, kind='pairs', length=length, seed=0, packing=packing,
    batch_size=2 if packing else len(examples), shuffle=False, repeat=False,
  )[0]  # fmt: skip


def loss_and_gradient(model, params, batch, **kw):
  loss_fn = dpo.make_loss(model, **kw)

  @jax.jit
  @jax.value_and_grad
  def total(policy):
    terms = loss_fn({'policy': policy}, {'ref': params['ref']}, batch, KEY)
    return train.weighted_sum(terms, dpo.make_weigh()(batch))[0]

  return total(params['policy'])


def test_packed_pairs_are_the_pairs(model, params):
  examples = make_examples()
  packed = one_batch(examples, 24, True)
  assert packed['examples'].sum(1).max() > 1
  assert packed['examples'].sum() == len(examples)
  alone = one_batch(examples, 8, False)
  one, one_gradient = loss_and_gradient(model, params, packed)
  two, two_gradient = loss_and_gradient(model, params, alone)
  assert float(one) == pytest.approx(float(two), abs=1e-5)
  worlds.assert_trees_close(one_gradient, two_gradient, atol=2e-5)


def test_reference_log_probs_may_be_computed_beforehand(model, params):
  batch = worlds.comparisons(4)
  live, _ = loss_and_gradient(model, params, batch)
  found = dpo.reference_logps(model)(params['ref'], batch)
  assert found.shape == (4, 2, 1)
  stored, _ = loss_and_gradient(
    model, params | {'ref': None}, batch | {'ref_logps': found}
  )
  assert float(stored) == pytest.approx(float(live), abs=1e-6)


class TestLoss:
  """Without a model: log-probs of arms."""

  batch = arm_pairs(np.array([True, False]))
  params = {'policy': {'arms': jnp.array([1.0, 0.0])}}
  frozen = {'ref': {'arms': jnp.array([0.0, 0.0])}}

  def loss(self, batch=None, **kw):
    loss_fn = dpo.make_loss(Arms(), **kw)
    terms = loss_fn(self.params, self.frozen, batch or self.batch, KEY)
    return np.asarray(terms['pair'][0])[:, 0]

  def test_by_hand(self):
    want = [np.log1p(np.exp(-0.1)), np.log1p(np.exp(0.1))]
    np.testing.assert_allclose(self.loss(beta=0.1), want, rtol=1e-5)

  def test_averages_over_tokens_where_asked_to(self):
    twice = {
      k: np.concatenate([v, v], -1) if k != 'examples' else v
      for k, v in self.batch.items()
    }
    summed = self.loss(twice, beta=0.1)
    averaged = self.loss(twice, beta=0.2, average_logps=True)
    np.testing.assert_allclose(summed, averaged, rtol=1e-5)

  def test_another_loss_by_name(self):
    margin = np.array([1.0, -1.0])
    want = (margin - 1 / (2 * 0.5)) ** 2
    np.testing.assert_allclose(self.loss(loss='ipo', beta=0.5), want, atol=1e-6)

  def test_a_loss_of_ones_own_by_its_dotted_name(self):
    np.testing.assert_allclose(
      self.loss(loss='alignax.losses.dpo_loss'), self.loss()
    )

  def test_an_unknown_loss_lists_those_there_are(self):
    with pytest.raises(ValueError, match="no loss 'dop' .* did you mean 'dpo'"):
      self.loss(loss='dop')
