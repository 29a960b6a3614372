"""Reward model: rankings, pairs, packing, and where a score is read."""

import itertools

import jax
import numpy as np
import pytest
import tiny_worlds as worlds
from test_dpo import make_examples, one_batch

from alignax import train
from alignax.algorithms import reward

KEY = jax.random.key(0)


@pytest.fixture(scope='module')
def model():
  return worlds.make_model()


@pytest.fixture(scope='module')
def params(model):
  return worlds.make_params(model, value_head=True)


def terms_of(model, params, batch, **kw):
  loss_fn = reward.make_loss(model, **kw)
  return loss_fn({'reward': params}, {}, batch, KEY)['rank']


class Scores:
  """Stands in for a model: its scores are given, [B, N, S]."""

  def scores(self, params, batch):
    return params


def test_packed_pairs_are_the_pairs(model, params):
  examples = make_examples()

  def loss_and_gradient(batch):
    @jax.jit
    @jax.value_and_grad
    def total(params):
      terms = {'rank': terms_of(model, params, batch, center=0.1)}
      return train.weighted_sum(terms, reward.weigh(batch))[0]

    return total(params)

  one, one_gradient = loss_and_gradient(one_batch(examples, 24, True))
  two, two_gradient = loss_and_gradient(one_batch(examples, 8, False))
  assert float(one) == pytest.approx(float(two), abs=1e-5)
  worlds.assert_trees_close(one_gradient, two_gradient, atol=2e-5)


def test_a_score_is_read_by_mask(model, params):
  """After the last response token, whatever tokens or padding follow."""
  batch = worlds.comparisons(4)
  score = jax.jit(model.scores)
  want = score(params, batch)
  values = jax.jit(model.values)(params, batch)
  last = np.where(batch['mask'], np.arange(worlds.LENGTH) + 1, 0).max(-1)
  read = np.take_along_axis(np.asarray(values), last[..., None], -1)
  np.testing.assert_allclose(want, read, atol=1e-6)
  padding = batch['segments'] == 0
  filled = batch | {'inputs': np.where(padding, 7, batch['inputs'])}
  np.testing.assert_allclose(score(params, filled), want, atol=1e-6)
  longer = {
    k: np.pad(v, [(0, 0), (0, 0), (0, 3)])
    if k in ('inputs', 'targets', 'segments', 'positions', 'mask') else v
    for k, v in batch.items()
  }  # fmt: skip
  np.testing.assert_allclose(score(params, longer), want, atol=1e-5)


class TestPairs:
  scores = np.array([[[1.5], [0.5]], [[0.0], [2.0]]], np.float32)
  batch = {'examples': np.ones((2, 1), bool), 'margins': np.full((2, 1), 0.5)}

  def loss(self, **kw):
    return np.asarray(terms_of(Scores(), self.scores, self.batch, **kw)[0])

  def test_by_hand(self):
    want = np.log1p(np.exp([[-1.0], [2.0]]))
    np.testing.assert_allclose(self.loss(), want, rtol=1e-5)

  def test_margins_are_used_where_asked_for(self):
    want = np.log1p(np.exp([[-0.5], [2.5]]))
    np.testing.assert_allclose(self.loss(use_margins=True), want, rtol=1e-5)

  def test_centring_holds_the_sum_at_zero(self):
    want = self.loss() + 0.1 * np.array([[4.0], [4.0]])
    np.testing.assert_allclose(self.loss(center=0.1), want, rtol=1e-5)


class TestRankings:
  def batch(self, ranks):
    ranks = np.asarray(ranks, np.int32)
    return {'ranks': ranks, 'examples': np.ones(ranks.shape[:2], bool)}

  def loss(self, scores, ranks, **kw):
    scores = np.asarray(scores, np.float32)[..., None]  # [B, K, S = 1]
    return terms_of(Scores(), scores, self.batch(ranks), **kw)

  def test_is_plackett_luce(self):
    """The probability of drawing the candidates one by one, best first."""
    scores, ranks = [0.3, -1.0, 2.0], [2, 3, 1]
    loss, _ = self.loss([scores], [[ranks]])
    total = 0.0
    left = [scores[ranks.index(place)] for place in (1, 2, 3)]
    while left:
      total -= left[0] - np.log(np.sum(np.exp(left)))
      left.pop(0)
    np.testing.assert_allclose(loss, [[total]], rtol=1e-5)

  def test_probabilities_of_all_orders_add_up_to_one(self):
    orders = list(itertools.permutations([1, 2, 3]))
    scores = np.tile([0.3, -1.0, 2.0], (len(orders), 1))
    loss, _ = self.loss(scores, [[order] for order in orders])
    np.testing.assert_allclose(np.exp(-loss).sum(), 1.0, rtol=1e-5)

  def test_or_the_mean_over_pairs(self):
    scores = np.array([0.3, -1.0, 2.0])
    loss, _ = self.loss([scores], [[[2, 3, 1]]], ranking='pairs')
    gaps = scores[[2, 2, 0]] - scores[[0, 1, 1]]
    np.testing.assert_allclose(loss, [[np.log1p(np.exp(-gaps)).mean()]])

  def test_a_missing_candidate_does_not_count(self):
    two, _ = self.loss([[0.3, -1.0]], [[[1, 2]]])
    three, _ = self.loss([[0.3, -1.0, 99.0]], [[[1, 2, 0]]])
    np.testing.assert_allclose(two, three, rtol=1e-5)

  def test_two_candidates_are_a_pair(self):
    loss, metrics = self.loss([[1.5, 0.5]], [[[1, 2]]])
    np.testing.assert_allclose(loss, np.log1p(np.exp(-1.0)), rtol=1e-5)
    assert float(metrics['rewards/accuracy'][0, 0]) == 1
