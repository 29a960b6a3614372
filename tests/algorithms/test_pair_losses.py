"""Every pair loss by its name through `dpo.py`, and what composes with it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_models as toys

import alignax
from alignax import train
from alignax.algorithms import dpo
from alignax.losses import lookup

KEY = jax.random.key(0)
MODEL = toys.Bigram()
BATCH = toys.comparisons()
PARAMS = {'policy': toys.table(0), 'ref': toys.table(1)}
NAMES = lookup.names(dpo.TAKES)
# What the issue asks for: a loss that fell off the list would be missed.
ASKED = {
  'dpo', 'ipo', 'hinge', 'robust_dpo', 'exo_pair', 'nca_pair', 'bco_pair',
  'sppo', 'aot', 'apo_zero', 'apo_down', 'discopop',
}  # fmt: skip
VARIANTS = [
  *((name, {}) for name in NAMES),
  *(
    ('dpo', {'divergence': d})
    for d in ('forward_kl', 'js_divergence', 'alpha_divergence')
  ),
  ('dpo', {'label_smoothing': 0.1, 'beta': 0.5}),
  ('aot', {'paired': False}),
]
# [B, 2, T], by numpy.
OWN, REF = (toys.token_logps(PARAMS[role], BATCH) for role in PARAMS)
LENGTHS = BATCH['mask'].sum(-1)


def evaluate(batch=BATCH, **kw):
  run = dpo.make_eval({'policy': MODEL}, **kw)
  frozen = {'ref': PARAMS['ref']}
  return run({'policy': PARAMS['policy']}, frozen, batch, KEY)


def pair_losses(name, own, ref, **kw):
  """A loss of `alignax` on log-probs [B, 2]."""
  loss = getattr(alignax, f'{name}_loss')
  return np.asarray(loss(*own.T, *ref.T, **kw)[0])


@pytest.mark.parametrize('by_row', [False, True])
def test_what_compares_whole_batches_is_evaluated_whole(by_row):
  whole = evaluate(loss='aot', by_row=by_row)
  parts = evaluate(loss='aot', by_row=by_row, microbatches=4)
  np.testing.assert_allclose(whole['loss'], parts['loss'], rtol=1e-6)


def test_all_that_are_asked_for_are_found():
  assert set(NAMES) >= ASKED


@pytest.mark.parametrize('name, kw', VARIANTS, ids=str)
def test_its_value_is_that_of_the_summed_log_probs(name, kw):
  want = pair_losses(name, OWN.sum(-1), REF.sum(-1), **kw)
  found = evaluate(loss=name, **kw)
  assert float(found['loss']) == pytest.approx(want.mean(), rel=2e-5)


@pytest.mark.parametrize('name', NAMES)
def test_it_trains(name):
  tx = optax.sgd(0.1)
  step = dpo.make_step({'policy': MODEL}, tx, loss=name)
  start = {'policy': jax.tree.map(jnp.array, PARAMS['policy'])}
  state = train.init_state(start, tx)
  rows = []
  for _ in range(3):
    state, metrics = step(state, {'ref': PARAMS['ref']}, BATCH, KEY)
    rows.append({k: float(v) for k, v in metrics.items()})
  assert all(np.isfinite(list(row.values())).all() for row in rows)
  assert rows[0]['grad_norm'] > 0 and rows[2]['loss'] < rows[0]['loss']


@pytest.mark.parametrize('kw', [
  dict(loss='apo_zero'), dict(wpo=True), dict(ld_alpha=0.3),
  dict(nll_coef=0.5), dict(average_logps=True), dict(loss='aot'),
], ids=str)  # fmt: skip
def test_packed_pairs_are_the_pairs(kw):
  packed = toys.comparisons(packing=True)
  assert packed['examples'].sum(1).max() > 1 and not packed['examples'].all()
  one, two = evaluate(**kw), evaluate(packed, **kw)
  assert one.keys() == two.keys()
  for name in one:
    assert float(one[name]) == pytest.approx(float(two[name]), abs=1e-5), name


class TestWholeBatches:
  def test_only_optimal_transport_needs_them(self):
    assert [n for n in NAMES if dpo.compares_whole_batches(n)] == ['aot']

  def test_they_are_not_cut(self):
    with pytest.raises(ValueError, match="microbatches is 2, but .* 'aot'"):
      dpo.make_step(
        {'policy': MODEL}, optax.sgd(0.1), loss='aot', microbatches=2
      )

  def test_pairs_that_are_not_there_are_left_out(self):
    absent = jax.tree.map(np.zeros_like, BATCH)
    more = jax.tree.map(lambda *x: np.concatenate(x), BATCH, absent)
    found, want = evaluate(more, loss='aot'), evaluate(loss='aot')
    assert float(found['loss']) == pytest.approx(float(want['loss']), abs=1e-6)


class TestComposed:
  plain = pair_losses('dpo', OWN.sum(-1), REF.sum(-1))

  def test_wpo_counts_pairs_by_how_likely_they_are(self):
    logits = PARAMS['policy']['embed']['embedding'].astype(np.float64)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    squares = np.log((probs**2).sum(-1))[BATCH['inputs']] * BATCH['mask']
    share = np.exp((OWN - squares).sum(-1) / LENGTHS).prod(-1)
    found = evaluate(wpo=True)
    want = (share * self.plain).mean()
    assert float(found['loss']) == pytest.approx(want, rel=1e-5)
    assert float(found['wpo/weight']) == pytest.approx(share.mean(), rel=1e-5)

  def test_no_gradient_flows_through_the_weight(self):
    loss_fn = dpo.make_loss(MODEL, wpo=True)

    def total(policy, other):
      """The loss whose weight is that of `other`."""
      terms = loss_fn({'policy': policy}, {'ref': PARAMS['ref']}, BATCH, KEY)
      plain = dpo.make_loss(MODEL)(
        {'policy': policy}, {'ref': PARAMS['ref']}, BATCH, KEY
      )
      _, likeness = dpo.logps_and_wpo(MODEL, other, BATCH)
      own = jnp.sum(terms['pair'][0])
      fixed = jnp.sum(likeness.prod(1) * plain['pair'][0])
      return own, fixed

    own, fixed = jax.jit(jax.jacrev(total))(PARAMS['policy'], PARAMS['policy'])
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), own, fixed
    )

  def test_ld_dpo_counts_what_goes_past_the_shorter_response_less(self):
    # Prompts are as long in both, so positions tell which tokens go past.
    order = np.cumsum(BATCH['mask'], axis=-1)
    past = order > LENGTHS.min(1)[:, None, None]
    assert past[BATCH['mask']].any()
    own, ref = ((np.where(past, 0.3, 1) * x).sum(-1) for x in (OWN, REF))
    found = evaluate(ld_alpha=0.3)
    want = pair_losses('dpo', own, ref).mean()
    assert float(found['loss']) == pytest.approx(want, rel=1e-5)
    stored = dpo.reference_logps(MODEL, ld_alpha=0.3, beta=0.1)
    batch = BATCH | {'ref_logps': stored(PARAMS['ref'], BATCH)}
    again = evaluate(batch, ld_alpha=0.3)
    assert float(again['loss']) == pytest.approx(want, rel=1e-5)

  def test_rpo_adds_the_likelihood_per_token_of_what_was_chosen(self):
    nll = -(OWN.sum(-1) / LENGTHS)[:, 0].mean()
    found = evaluate(nll_coef=0.7)
    assert float(found['nll']) == pytest.approx(nll, rel=1e-5)
    want = self.plain.mean() + 0.7 * nll
    assert float(found['loss']) == pytest.approx(want, rel=1e-5)

  def test_length_normalised_forms(self):
    mean = lambda x: x.sum(-1) / LENGTHS
    found = evaluate(loss='ipo', average_logps=True)
    want = pair_losses('ipo', mean(OWN), mean(REF)).mean()
    assert float(found['loss']) == pytest.approx(want, rel=1e-5)


class TestNames:
  def test_a_loss_of_something_else_is_not_offered(self):
    with pytest.raises(ValueError, match="no loss 'simpo' of chosen_logps"):
      dpo.make_loss(MODEL, loss='simpo')

  def test_arguments_of_the_names_are_hyper_parameters(self):
    """But for `exists`, which no config can give."""
    for name in NAMES:
      loss = lookup.find_loss(name, dpo.TAKES)
      for p in inspect.signature(loss).parameters.values():
        if p.kind == p.KEYWORD_ONLY and p.name != 'exists':
          assert isinstance(p.default, (int, float, str)), (name, p)
