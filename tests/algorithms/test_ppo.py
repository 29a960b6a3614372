"""PPO on a policy that is a table: what each of its knobs does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds
import toy_models as toys

from alignax import inner_steps, rewards, train
from alignax.algorithms import ppo, sft

KEY = jax.random.key(0)
MODEL = toys.Bigram()
GOOD = 4  # The token that is worth something.


def nothing(frozen, rows):
  return np.zeros(len(rows['lengths']), np.float32), {}


def good_tokens(frozen, rows):
  """The share of a response that is the good token."""
  good = np.sum((rows['targets'] == GOOD) & rows['mask'], axis=1)
  return (good / np.asarray(rows['lengths'])).astype(np.float32), {}


def build(tx=None, *, policy=None, ref=None, score_fn=good_tokens, **kw):
  """(step, state, frozen) of PPO on tables."""
  tx = tx or optax.adam(0.1)
  kw = dict(max_new_tokens=4, score_fn=score_fn) | kw
  policy = policy or toys.table(0)
  trained, _ = ppo.roles(**kw)
  params = {'policy': policy, 'value': toys.values()}
  if kw.get('shared_value'):
    params['policy'] = policy | toys.values()
  params = {role: params[role] for role in trained}
  state = train.init_state(
    jax.tree.map(jnp.array, params), tx, extra=ppo.init_extra(**kw)
  )
  models = {role: MODEL for role in ('policy', 'value')}
  step = ppo.make_step(models, tx, **kw)
  return step, state, {'ref': ref or policy}


def run(steps=1, *, batch=None, seed=0, **kw):
  """The last state and all metrics."""
  step, state, frozen = build(**kw)
  rows = []
  for i in range(steps):
    prompts = batch or toys.prompts(seed=seed + i)
    state, metrics = step(state, frozen, prompts, KEY)
    rows.append({k: float(v) for k, v in metrics.items()})
  return state, rows


class TestWholeStep:
  @pytest.mark.parametrize('shared_value', [False, True])
  def test_reaches_the_optimum_of_a_toy(self, shared_value):
    _, rows = run(
      30, kl_coef=0.0, shared_value=shared_value, epochs=2, lam=1.0,
      tx=optax.adam(0.2),
    )  # fmt: skip
    assert rows[0]['objective/score'] < 0.4
    assert rows[-1]['objective/score'] > 0.97

  def test_the_first_update_starts_from_the_rollout(self):
    # With a temperature, so that forgetting it anywhere would show.
    _, (row,) = run(temperature=0.7)
    assert row['policy/ratio'] == pytest.approx(1, abs=1e-5)
    assert row['policy/approx_kl'] == pytest.approx(0, abs=1e-6)
    assert row['policy/clipped'] == 0
    assert row['objective/kl'] == pytest.approx(0, abs=1e-5)

  def test_two_steps_sample_differently(self):
    prompts = toys.prompts()
    step, state, frozen = build(tx=optax.sgd(0.0))
    seen = []
    for _ in range(3):
      state, metrics = step(state, frozen, prompts, KEY)
      seen.append(float(metrics['objective/entropy']))
    assert len(set(seen)) == 3

  def test_a_score_may_come_from_the_host_and_knows_its_row(self):
    seen = []

    def score_fn(frozen, rows):
      seen.append(np.asarray(rows['row']))
      return nothing(frozen, rows)

    run(score_fn=score_fn)
    np.testing.assert_array_equal(seen[0], np.arange(32))

  def test_without_a_score_fn_there_is_a_reward_model(self):
    assert ppo.roles() == (('policy', 'value'), ('ref', 'reward'))
    assert ppo.roles(shared_value=True)[0] == ('policy',)
    assert ppo.roles(score_fn=nothing)[1] == ('ref',)
    step = ppo.make_step(
      {role: worlds.make_model() for role in ('policy', 'value', 'reward')},
      optax.sgd(0.1),
    )
    assert callable(step)


class TestScores:
  def test_a_response_that_did_not_end_pays(self):
    _, (row,) = run(score_fn=nothing, stop_ids=(0,), missing_eos_penalty=2.0)
    assert 0 < row['objective/finished'] < 1
    want = -2 * (1 - row['objective/finished'])
    assert row['objective/score'] == pytest.approx(want, rel=1e-5)

  def test_scores_are_clipped_on_both_sides(self):
    far = lambda frozen, rows: (np.where(np.arange(32) < 8, -9, 9.0), {})
    _, (row,) = run(score_fn=far, score_clip=1.5)
    assert row['objective/score'] == pytest.approx((24 - 8) / 32 * 1.5)

  def test_the_penalty_comes_after_the_clip(self):
    high = lambda frozen, rows: (np.full(32, 9.0), {})
    _, (row,) = run(score_fn=high, score_clip=1.0, missing_eos_penalty=3.0)
    assert row['objective/score'] == pytest.approx(1 - 3)

  def test_whitened_rewards_do_not_know_their_scale(self):
    # Of mean zero: it is kept, whatever it is.
    balanced = lambda scale: lambda frozen, rows: (
      scale * np.where(np.arange(32) % 2, 1.0, -1.0), {},
    )  # fmt: skip
    kw = dict(kl_coef=0.0, whiten_rewards=True)
    _, (one,) = run(score_fn=balanced(1), **kw)
    _, (ten,) = run(score_fn=balanced(10), **kw)
    assert one['loss'] == pytest.approx(ten['loss'], rel=1e-4)
    _, (plain,) = run(score_fn=balanced(10), kl_coef=0.0)
    assert abs(plain['loss'] - ten['loss']) > 1e-3

  def test_whitened_advantages_do_not_know_their_scale(self):
    kw = dict(kl_coef=0.0, value_coef=0.0, tx=optax.sgd(1.0))
    tenfold = lambda *given: (10 * good_tokens(*given)[0], {})
    one, _ = run(score_fn=good_tokens, **kw)
    ten, _ = run(score_fn=tenfold, **kw)
    worlds.assert_trees_close(one.params, ten.params, atol=1e-5)
    raw, _ = run(score_fn=tenfold, whiten_advantages=False, **kw)
    moved = jax.tree.map(
      lambda x, y: np.abs(x - y).max(), raw.params, ten.params
    )
    assert moved['policy']['embed']['embedding'] > 1e-3


class TestWithoutAScore:
  """A response whose score is NaN is as if it were not there."""

  scores = [1, 0, np.nan, 3, -1, 2]

  def update(self, scores, batch):
    state, (row,) = run(
      batch=batch, score_fn=lambda *_: (np.array(scores, np.float32), {}),
      tx=optax.sgd(0.5), lam=1.0, ref=toys.table(3),
    )  # fmt: skip
    return state.params['policy']['embed']['embedding'], row

  def test_whatever_it_was(self):
    batch = toys.prompts(6)
    other = {k: v.copy() for k, v in batch.items()}
    other['inputs'][2] = (batch['inputs'][2] + 1) % toys.SIZE
    one, row = self.update(self.scores, batch)
    two, same = self.update(self.scores, other)
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert row == pytest.approx(same, abs=1e-5)
    assert row['rewards/excluded'] == 1 and row['objective/score'] == 1
    # With a score, it does make a difference.
    scored = np.nan_to_num(self.scores)
    moved = self.update(scored, batch)[0] - self.update(scored, other)[0]
    assert np.abs(moved).max() > 1e-3

  def test_if_it_is_all_there_is_nothing_moves(self):
    policy, row = self.update([np.nan] * 6, toys.prompts(6))
    np.testing.assert_array_equal(policy, toys.table(0)['embed']['embedding'])
    assert row['rewards/excluded'] == 6 and row['skipped'] == 0
    assert all(np.isfinite(x) for x in row.values())

  def test_every_reward_is_logged(self):
    both = rewards.weighted_sum({
      'good': rewards.Term(good_tokens, weight=0.5),
      'none': rewards.Term(nothing),
    })  # fmt: skip
    _, (row,) = run(score_fn=both)
    assert row['rewards/good'] > 0 and row['rewards/none'] == 0
    half = row['rewards/good'] / 2
    assert row['objective/score'] == pytest.approx(half, rel=1e-5)


  def test_a_coefficient_that_adapts_survives_what_is_not_a_number(self):
    step, state, frozen = build(target_kl=1.0, kl_coef=0.3)
    bad = jax.tree.map(lambda x: np.full_like(x, np.nan), frozen)
    state, metrics = step(state, bad, toys.prompts(), KEY)
    assert metrics['skipped'] == 1 and not np.isfinite(metrics['objective/kl'])
    assert float(state.extra['kl_coef']) == pytest.approx(0.3)
    state, _ = step(state, frozen, toys.prompts(), KEY)
    assert 0 < float(state.extra['kl_coef']) < 0.3  # It is below the target.

  def test_a_batch_of_one(self):
    _, (row,) = run(batch=toys.prompts(1))
    assert row['skipped'] == 0 and row['grad_norm'] > 0
    assert all(np.isfinite(x) for x in row.values())

  def test_bad_tokens_may_have_a_bound_of_their_own(self):
    kw = dict(epochs=4, tx=optax.sgd(8.0), clip=0.2, max_new_tokens=3)
    free, bound = (
      run(dual_clip=dual_clip, **kw)[1][0]['loss'] for dual_clip in (0.0, 1.25)
    )
    assert bound < free


class TestKL:
  @pytest.mark.parametrize('kw', [
    dict(kl_in='reward', kl_kind='k1'),
    dict(kl_in='loss', kl_kind='k2'),
    dict(kl_in='loss', kl_kind='k3'),
  ], ids=lambda kw: f'{kw["kl_in"]}-{kw["kl_kind"]}')  # fmt: skip
  def test_it_pulls_the_policy_to_the_reference(self, kw):
    _, rows = run(
      12, score_fn=nothing, ref=toys.table(9), kl_coef=1.0, lam=1.0,
      batch=toys.prompts(128), **kw,
    )  # fmt: skip
    assert rows[-1]['objective/kl'] < 0.4 * rows[0]['objective/kl']

  def test_the_reward_is_the_score_less_kl(self):
    _, (row,) = run(ref=toys.table(9), kl_coef=0.3)
    want = row['objective/score'] - 0.3 * row['objective/kl']
    assert row['objective/reward'] == pytest.approx(want, rel=1e-4)
    assert row['kl_coef'] == pytest.approx(0.3)

  @pytest.mark.parametrize('target, direction', [(1e-3, 1), (1e3, -1)])
  def test_an_adaptive_coefficient_moves_the_right_way(self, target, direction):
    state, (row,) = run(
      ref=toys.table(9), kl_coef=0.3, target_kl=target, kl_horizon=100
    )
    # It moves by the error, cut to a fifth, over the horizon.
    want = 0.3 * (1 + direction * 0.2 * 32 / 100)
    assert float(state.extra['kl_coef']) == pytest.approx(want, rel=1e-5)
    assert row['kl_coef'] == pytest.approx(0.3)

  def test_a_fixed_coefficient_stays(self):
    state, _ = run(2, ref=toys.table(9), kl_coef=0.3)
    assert float(state.extra['kl_coef']) == np.float32(0.3)

  @pytest.mark.parametrize('kw, match', [
    (dict(kl_in='losses'), "'reward' or 'loss'"),
    (dict(kl_in='loss'), "'k2' or 'k3'"),
    (dict(target_kl=-1.0), 'target_kl is -1'),
  ])  # fmt: skip
  def test_settings_that_make_no_sense(self, kw, match):
    with pytest.raises(ValueError, match=match):
      build(**kw)


class TestUpdates:
  def test_every_epoch_and_minibatch_is_an_update(self):
    state, (row,) = run(epochs=3, minibatches=4)
    assert row['updates'] == 12 and int(state.step) == 12
    assert ppo.updates_per_step(epochs=3, minibatches=4) == 12

  def test_a_step_ends_when_it_has_gone_too_far(self):
    far = dict(epochs=6, tx=optax.sgd(20.0), lam=1.0)
    state, (row,) = run(stop_kl=1e-3, **far)
    # The first update starts at a distance of zero, the second does not.
    assert row['updates'] == 2 and int(state.step) == 2
    assert row['policy/approx_kl'] > 5e-4
    state, (row,) = run(stop_kl=1e6, **far)
    assert row['updates'] == 6 and int(state.step) == 6

  def test_stopping_or_not_the_updates_are_the_same(self):
    one, rows = run(2, epochs=2, minibatches=2, stop_kl=1e6)
    two, others = run(2, epochs=2, minibatches=2)
    worlds.assert_trees_close(one.params, two.params, atol=1e-6)
    assert rows[1]['loss'] == pytest.approx(others[1]['loss'], abs=1e-6)

  def test_microbatches_change_nothing(self):
    one, (row,) = run(minibatches=2, epochs=2)
    two, (other,) = run(minibatches=2, epochs=2, microbatches=4)
    worlds.assert_trees_close(one.params, two.params, atol=2e-5)
    assert row['loss'] == pytest.approx(other['loss'], abs=2e-5)

  def test_entropy_is_rewarded(self):
    kw = dict(score_fn=nothing, kl_coef=0.0, value_coef=0.0)
    _, rows = run(15, entropy_coef=0.5, tx=optax.adam(0.2), **kw)
    assert rows[0]['policy/entropy'] < 1.6
    assert rows[-1]['policy/entropy'] > 0.98 * np.log(toys.SIZE)

  def test_pretraining_text_adds_the_loss_of_sft(self):
    text = {
      'inputs': np.array([[1, 2, 3, 4]] * 4, np.int32),
      'targets': np.array([[2, 3, 4, 0]] * 4, np.int32),
      'mask': np.array([[1, 1, 1, 0], [0, 1, 1, 0]] * 2, bool),
      'segments': np.ones((4, 4), np.int32),
    }
    step, state, frozen = build(ptx_coef=0.5, value_coef=0.0)
    nll = -MODEL.logps(state.params['policy'], text)
    share = sft.weigh('token')(text)['nll']
    want = float(jnp.sum(share * nll))
    batch = toys.prompts() | {'ptx': text}
    _, metrics = step(state, frozen, batch, KEY)
    assert float(metrics['ptx/nll']) == pytest.approx(want, rel=1e-5)
    assert float(metrics['loss/ptx']) == pytest.approx(0.5 * want, rel=1e-5)
    total = sum(float(metrics[f'loss/{t}']) for t in ('policy', 'value', 'ptx'))
    assert float(metrics['loss']) == pytest.approx(total, abs=1e-5)


class TestParts:
  batch = {
    'a': np.arange(8),
    'b': np.arange(16).reshape(8, 2),
    'ptx': {'c': np.arange(4), 'd': np.arange(4) * 10},
  }

  def parts(self, epochs=3, minibatches=2):
    return jax.device_get(
      inner_steps.shuffled_parts(KEY, self.batch, epochs, minibatches)
    )

  def test_rows_that_belong_together_stay_together(self):
    parts = self.parts()
    assert parts['a'].shape == (6, 4) and parts['ptx']['c'].shape == (6, 2)
    np.testing.assert_array_equal(parts['b'][..., 0], 2 * parts['a'])
    np.testing.assert_array_equal(parts['ptx']['d'], 10 * parts['ptx']['c'])

  def test_every_epoch_sees_every_row_once_in_an_order_of_its_own(self):
    epochs = self.parts()['a'].reshape(3, 8)
    for epoch in epochs:
      assert sorted(epoch) == list(range(8))
    assert len({tuple(epoch) for epoch in epochs}) == 3

  def test_one_minibatch_is_the_batch(self):
    parts = self.parts(epochs=2, minibatches=1)
    np.testing.assert_array_equal(parts['a'], [np.arange(8)] * 2)
