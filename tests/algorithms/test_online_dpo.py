"""Online DPO: which responses are a pair, in rounds, and with a reference."""

import jax
import jax.numpy as jnp
import numpy as np
import online_worlds as online
import optax
import pytest
import toy_models as toys

from alignax.algorithms import nash_md, online_dpo

G, BETA = 4, 0.5
OTHER = toys.table(9)


def sums(rows, table):
  return jnp.sum(online.logps_of(rows)(table) * rows['mask'], axis=1)


def dpo_by_hand(rows, first, second, ref, alpha=0.0):
  """Mean loss of pairs of rows, by number; `first` is preferred."""
  ref_sums = sums(rows, ref)

  def loss(logps):
    own = jnp.sum(logps * rows['mask'], axis=1)
    gain = own - ref_sums
    z = BETA * (gain[first] - gain[second])
    return jnp.mean(jnp.log1p(jnp.exp(-z)))

  return loss


def test_the_best_and_the_worst_are_a_pair():
  moved, (rows,), metrics = online.one_update(
    online_dpo, group=G, beta=BETA, ref=OTHER
  )
  scores, _ = online.good_tokens(None, rows)
  start = np.arange(16) * G
  best = start + scores.reshape(-1, G).argmax(1)
  worst = start + scores.reshape(-1, G).argmin(1)
  tell = scores[best] > scores[worst]  # Equal ones are no pair.
  assert metrics['objective/pairs'] == tell.mean() and 0 < tell.mean() < 1
  ref = OTHER['embed']['embedding']
  loss = dpo_by_hand(rows, best[tell], worst[tell], ref)
  np.testing.assert_allclose(moved, online.gradient(loss, rows), atol=1e-5)


def test_xpo_compares_with_a_response_of_the_reference():
  alpha = 0.2
  moved, (rows,), metrics = online.one_update(
    online_dpo, loss='xpo', beta=BETA, alpha=alpha, ref=OTHER
  )
  # Every second response is the reference's, with its log-probs.
  for first, table in ((0, toys.table(0)), (1, OTHER)):
    logps = online.logps_of(rows)(table['embed']['embedding'])
    np.testing.assert_allclose(
      rows['logps'][first::2], logps[first::2], atol=1e-5
    )
  scores, _ = online.good_tokens(None, rows)
  assert metrics['objective/score'] == pytest.approx(scores[::2].mean())
  own, other = np.arange(0, 32, 2), np.arange(1, 32, 2)
  tell = scores[own] != scores[other]
  own, other = own[tell], other[tell]
  wins = scores[own] > scores[other]
  pair = dpo_by_hand(
    rows, np.where(wins, own, other), np.where(wins, other, own),
    OTHER['embed']['embedding'],
  )  # fmt: skip

  def loss(logps):
    of_other = jnp.sum(logps * rows['mask'], axis=1)[other]
    return pair(logps) + alpha * jnp.mean(of_other)

  np.testing.assert_allclose(moved, online.gradient(loss, rows), atol=1e-5)


def test_in_rounds_sampler_and_reference_are_those_of_its_start():
  kept, starts = [], []
  step, state, frozen = online.build(
    online_dpo, group=2, round_steps=3, beta=BETA, max_new_tokens=5,
    tx=optax.sgd(1.0), score_fn=online.keeping(online.good_tokens, kept),
  )  # fmt: skip
  assert not frozen
  tables = [online.table_of(state)]
  for i in range(7):
    state, metrics = step(state, frozen, toys.prompts(16, seed=i), online.KEY)
    tables.append(online.table_of(state))
    starts.append(np.asarray(state.extra['start']['embed']['embedding']))
  for i, rows in enumerate(kept):
    start = tables[3 * (i // 3)]
    np.testing.assert_array_equal(starts[i], start)
    np.testing.assert_allclose(
      rows['logps'], online.logps_of(rows)(start), atol=1e-5
    )
  # Within a round the policy moves away; the update is to the round's start.
  assert np.abs(tables[5] - tables[3]).max() > 1e-3
  rows, (scores, _) = kept[5], online.good_tokens(None, kept[5])
  first, second = np.arange(0, 32, 2), np.arange(1, 32, 2)
  wins = scores[first] > scores[second]
  tell = scores[first] != scores[second]
  best, worst = np.where(wins, (first, second), (second, first))[:, tell]
  loss = dpo_by_hand(rows, best, worst, tables[3])
  want = online.gradient(loss, rows, table=tables[5])
  np.testing.assert_allclose(tables[5] - tables[6], want, atol=1e-5)


def test_another_loss_by_name():
  one, _, _ = online.one_update(online_dpo, loss='ipo', beta=BETA, ref=OTHER)
  two, _, _ = online.one_update(online_dpo, loss='dpo', beta=BETA, ref=OTHER)
  assert np.abs(one - two).max() > 1e-2
  assert online_dpo.find_loss('xpo') is not online_dpo.find_loss('dpo')


@pytest.mark.parametrize('kw, match', [
  (dict(loss='xpo', group=4), 'group is 4 and round_steps 0'),
  (dict(loss='xpo', round_steps=3), 'round_steps 3'),
  (dict(group=1), 'group is 1'),
  (dict(round_steps=-1), 'round_steps is -1'),
  (dict(loss='dop'), "did you mean 'dpo'"),
  (dict(loss='aot', microbatches=2), 'compares all pairs'),
])  # fmt: skip
def test_settings_that_make_no_sense(kw, match):
  with pytest.raises(ValueError, match=match):
    online.build(online_dpo, **kw)


def test_nash_md_leaves_out_what_is_infinite():
  def some(frozen, rows):
    scores, _ = online.good_tokens(frozen, rows)
    scores = np.array(scores)
    scores[[0, 3]] = np.inf, -np.inf  # Of the policy, and of its opponent.
    return scores, {}

  _, (rows,), metrics = online.one_update(nash_md, score_fn=some)
  scores, _ = online.good_tokens(None, rows)
  chance = 1 / (1 + np.exp(scores[1::2] - scores[::2]))[2:]
  assert metrics['objective/win_prob'] == pytest.approx(chance.mean(), rel=1e-5)


@pytest.mark.parametrize('win_probs', [False, True])
def test_nash_md_by_hand(win_probs):
  moved, (rows,), metrics = online.one_update(
    nash_md, beta=BETA, mixture=0.3, win_probs=win_probs, ref=OTHER
  )
  own = {k: v[::2] for k, v in rows.items()}
  mask = own['mask']
  scores, _ = online.good_tokens(None, rows)
  chance = scores[::2] if win_probs else 1 / (
    1 + np.exp(scores[1::2] - scores[::2])
  )  # fmt: skip
  assert metrics['objective/win_prob'] == pytest.approx(chance.mean(), rel=1e-5)
  tables = [t['embed']['embedding'] for t in (toys.table(0), OTHER)]
  ref = np.asarray(online.logps_of(own)(tables[1]))
  gain = chance[:, None] - 0.5 - BETA * (own['logps'] - ref)
  loss = lambda logps: -jnp.sum(jnp.where(mask, gain * logps, 0)) / len(mask)
  np.testing.assert_allclose(moved, online.gradient(loss, own), atol=1e-5)
  # The opponent's log-probs are those of the mixture.
  blend = jax.nn.log_softmax(0.7 * tables[0] + 0.3 * tables[1])
  other = {k: v[1::2] for k, v in rows.items()}
  np.testing.assert_allclose(
    other['logps'], online.logps_of(other)(blend), atol=1e-5
  )
