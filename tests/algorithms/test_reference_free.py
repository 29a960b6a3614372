"""ORPO, SimPO, CPO and TPO: their losses by hand, packed and in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds
import toy_models as toys

from alignax import train
from alignax.algorithms import cpo, orpo, simpo, tpo

KEY = jax.random.key(0)
MODEL = toys.Bigram()
POLICY = toys.table(0)
PAIRS = toys.comparisons()
OWN = toys.token_logps(POLICY, PAIRS)  # [B, 2, T]
SUMS = OWN.sum(-1)
MEANS = SUMS / PAIRS['mask'].sum(-1)
NLL = -OWN[:, 0].sum() / PAIRS['mask'][:, 0].sum()
sigmoid = lambda x: 1 / (1 + np.exp(-x))

# (module, arguments, loss by hand)
CASES = {
  'orpo': (
    orpo,
    dict(beta=0.2),
    NLL
    - 0.2
    * np.log(
      sigmoid(
        np.diff(MEANS[:, ::-1] - np.log1p(-np.exp(MEANS[:, ::-1])), axis=1)
      )
    ).mean(),
  ),
  'simpo': (
    simpo,
    dict(beta=2.5, gamma=0.4),
    -np.log(sigmoid(2.5 * (MEANS[:, 0] - MEANS[:, 1]) - 0.4)).mean(),
  ),
  'cpo-simpo': (
    simpo,
    dict(nll_coef=0.3),
    -np.log(sigmoid(2.0 * (MEANS[:, 0] - MEANS[:, 1]) - 0.5)).mean()
    + 0.3 * NLL,
  ),
  'alphapo': (
    simpo,
    dict(loss='alphapo', alpha=0.5),
    -np.log(
      sigmoid(
        2.0 * (np.exp(-0.5 * MEANS[:, 1]) - np.exp(-0.5 * MEANS[:, 0])) / 0.5
        - 0.5
      )
    ).mean(),
  ),
  'cpo': (
    cpo,
    dict(nll_coef=0.5),
    -np.log(sigmoid(0.1 * (SUMS[:, 0] - SUMS[:, 1]))).mean() + 0.5 * NLL,
  ),
  'cpo-hinge': (
    cpo,
    dict(kind='hinge', nll_coef=0.0),
    np.maximum(0, 1 - 0.1 * (SUMS[:, 0] - SUMS[:, 1])).mean(),
  ),
}


def evaluate(module, batch, **kw):
  run = module.make_eval({'policy': MODEL}, **kw)
  return run({'policy': POLICY}, {}, batch, KEY)


@pytest.mark.parametrize('name', CASES)
def test_by_hand(name):
  module, kw, want = CASES[name]
  found = evaluate(module, PAIRS, **kw)
  assert float(found['loss']) == pytest.approx(want, rel=2e-5)


# TPO's batches are rankings of three candidates.
ALL = {
  name: (module, kw, 'pairs', 2) for name, (module, kw, _) in CASES.items()
}
ALL['tpo'] = (tpo, {}, 'rankings', 3)


def run_step(module, kw, batch, **more):
  tx = optax.sgd(0.1)
  step = module.make_step({'policy': MODEL}, tx, **kw, **more)
  state = train.init_state({'policy': jax.tree.map(jnp.array, POLICY)}, tx)
  return step(state, {}, batch, KEY)


@pytest.mark.parametrize('name', ALL)
def test_packed_and_in_parts_it_is_the_same_step(name):
  module, kw, kind, candidates = ALL[name]
  alone = toys.comparisons(kind, candidates=candidates)
  packed = toys.comparisons(kind, candidates=candidates, packing=True)
  assert packed['examples'].sum(1).max() > 1
  one, row = run_step(module, kw, alone)
  for batch, parts in ((packed, 1), (alone, 4), (packed, 2)):
    two, other = run_step(module, kw, batch, microbatches=parts)
    worlds.assert_trees_close(one.params, two.params, atol=1e-5)
    worlds.assert_trees_close(row, other, atol=1e-5)
  changed = np.abs(one.params['policy']['embed']['embedding'] - MODEL_TABLE)
  assert changed.max() > 1e-3


MODEL_TABLE = POLICY['embed']['embedding']


def test_there_is_no_reference():
  for module in (orpo, simpo, cpo, tpo):
    assert module.FROZEN == () and module.TRAINED == ('policy',)


def test_simpo_takes_losses_of_means_alone():
  with pytest.raises(
    ValueError, match="no loss 'simp' .* did you mean 'simpo'"
  ):
    simpo.make_loss(MODEL, loss='simp')
  with pytest.raises(ValueError, match="no loss 'dpo' of chosen_mean_logps"):
    simpo.make_loss(MODEL, loss='dpo')


class TestTPO:
  batch = toys.comparisons('rankings', candidates=3)
  own = toys.token_logps(POLICY, batch)  # [B, 3, T]
  order = np.argsort(batch['ranks'][:, 0], axis=-1)

  def by_hand(self, exists, average=True):
    lengths = self.batch['mask'].sum(-1) if average else 1
    scores = self.own.sum(-1) / lengths
    pick = lambda i: np.take_along_axis(scores, self.order[:, i : i + 1], 1)
    margin = 2.0 * (pick(1) - pick(2)) - 0.5
    gold = self.order[:, 0]
    rows = np.arange(len(gold))
    nll = -self.own[rows, gold].sum() / self.batch['mask'][rows, gold].sum()
    return -np.log(sigmoid(margin))[exists].mean() + nll

  @pytest.mark.parametrize('average', [True, False])
  def test_gold_is_imitated_and_the_second_preferred(self, average):
    found = evaluate(tpo, self.batch, average_logps=average)
    want = self.by_hand(np.ones(8, bool), average)
    assert float(found['loss']) == pytest.approx(want, rel=1e-5)

  def test_rankings_that_decide_nothing_only_add_likelihood(self):
    ranks = self.batch['ranks'].copy()
    # The two after the best are alike; and there is no third.
    ranks[0, 0, self.order[0, 1:]] = 2
    ranks[1, 0, self.order[1, 2]] = 0
    found = evaluate(tpo, self.batch | {'ranks': ranks})
    want = self.by_hand(np.arange(8) > 1)
    assert float(found['loss']) == pytest.approx(want, rel=1e-5)
