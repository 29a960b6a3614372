"""GRPO on a policy that is a table: groups, their losses, dynamic sampling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import online_worlds as online
import optax
import pytest
import tiny_worlds as worlds
import toy_models as toys
from online_worlds import GOOD, constant, good_tokens, keeping, table_of

import alignax
from alignax import rollouts, sampling
from alignax.algorithms import grpo

KEY = jax.random.key(0)
MODEL = toys.Bigram()
G, N = 4, 5


build = functools.partial(online.build, grpo, group=G, max_new_tokens=N)
run = functools.partial(online.run, grpo, group=G, max_new_tokens=N)


class TestWholeStep:
  def test_reaches_the_optimum_of_a_toy(self):
    _, rows = run(30, tx=optax.adam(0.3), minibatches=2)
    assert rows[0]['objective/score'] < 0.4
    assert rows[-1]['objective/score'] > 0.97
    assert rows[-1]['groups/dead'] > rows[0]['groups/dead']

  @pytest.mark.parametrize('kw', [
    dict(),
    dict(average='budget', scale='none', stop_ids=(0,)),
    dict(ratio='sequence', stop_ids=(0,)),
    dict(ratio='geometric', clip_low=0.4, clip_high=0.4, stop_ids=(0,)),
    dict(loss='cispo', average='token'),
    dict(loss='sapo'),
    dict(loss='vespo'),
    dict(importance='token'),
  ], ids=str)  # fmt: skip
  def test_the_first_update_starts_from_the_rollout(self, kw):
    # With a temperature, so that forgetting it anywhere would show.
    _, (row,) = run(temperature=0.7, **kw)
    assert row['policy/ratio'] == pytest.approx(1, abs=1e-5)
    assert row['policy/approx_kl'] == pytest.approx(0, abs=1e-6)
    assert row['grad_norm'] > 1e-3

  @pytest.mark.parametrize('kw', [
    dict(), dict(scale='batch', loss='cispo'), dict(average='budget'),
  ], ids=str)  # fmt: skip
  def test_equal_scores_teach_nothing(self, kw):
    state, (row,) = run(score_fn=constant, tx=optax.sgd(1.0), epochs=2, **kw)
    assert row['grad_norm'] == 0 and row['groups/dead'] == 1
    np.testing.assert_array_equal(table_of(state), table_of(build()[1]))

  def test_every_epoch_and_minibatch_is_an_update(self):
    state, (row,) = run(epochs=3, minibatches=4)
    assert row['updates'] == 12 and int(state.step) == 12
    assert grpo.updates_per_step(epochs=3, minibatches=4) == 12
    assert grpo.learned_rows(48, group=G, rounds=3) == 64

  def test_microbatches_change_nothing(self):
    kw = dict(minibatches=2, epochs=2, kl_coef=0.1, stop_ids=(0,))
    one, (row,) = run(**kw)
    two, (other,) = run(**kw, microbatches=4)
    worlds.assert_trees_close(one.params, two.params, atol=2e-5)
    assert row['loss'] == pytest.approx(other['loss'], abs=2e-5)

  def test_two_steps_sample_differently_and_a_step_again_alike(self):
    prompts, seen = toys.prompts(16), []
    step, state, frozen = build(tx=optax.sgd(0.0))
    for _ in range(3):
      state, metrics = step(state, frozen, prompts, KEY)
      seen.append(float(metrics['objective/entropy']))
    assert len(set(seen)) == 3
    step, state, frozen = build(tx=optax.sgd(0.0))
    _, metrics = step(state, frozen, prompts, KEY)
    assert float(metrics['objective/entropy']) == seen[0]

  def test_roles_are_those_that_are_needed(self):
    assert grpo.roles(score_fn=constant) == (('policy',), ())
    assert grpo.roles(kl_coef=0.1)[1] == ('ref', 'reward')

  @pytest.mark.parametrize('kw, match', [
    (dict(loss='cispo', ratio='sequence'), 'only ratios of tokens'),
    (dict(ratio='tokens'), "it is 'token', 'sequence'"),
    (dict(loss='sappo'), "did you mean 'sapo'"),
    (dict(average='tokens'), "Unknown average 'tokens'"),
    (dict(importance='yes'), "Unknown importance 'yes'"),
    (dict(kl_coef=0.1, kl_kind='k1'), "'k1' has no gradient on average"),
  ])  # fmt: skip
  def test_settings_that_make_no_sense(self, kw, match):
    with pytest.raises(ValueError, match=match):
      build(**kw)


def by_hand(rows, logps, *, scale, average, kl_coef=0.0, ref=None, clip=0.2,
            kl_times_ratio=False):  # fmt: skip
  """The loss of a whole rollout, written out."""
  scores = good_tokens(None, rows)[0].reshape(-1, G)
  adv = scores - scores.mean(1, keepdims=True)
  if scale == 'group':
    adv = adv / (scores.std(1, ddof=1, keepdims=True) + 1e-4)
  adv = adv.reshape(-1, 1)
  ratio = jnp.exp(logps - rows['logps'])
  near = jnp.clip(ratio, 1 - clip, 1 + clip)
  loss = -jnp.minimum(ratio * adv, near * adv)
  if kl_coef:
    kl = jnp.exp(ref - logps) - (ref - logps) - 1
    loss += kl_coef * kl * (ratio if kl_times_ratio else 1.0)
  share = {
    'token': 1 / rows['mask'].sum(),
    'sequence': 1 / (len(adv) * rows['mask'].sum(1, keepdims=True)),
    'budget': 1 / (len(adv) * N),
  }[average]
  return jnp.sum(jnp.where(rows['mask'], share * loss, 0.0))


class TestLoss:
  @pytest.mark.parametrize('kw', [
    dict(scale='group', average='sequence'),
    dict(scale='group', average='token'),
    dict(scale='none', average='budget'),
    dict(scale='group', average='sequence', kl_coef=0.3),
    dict(scale='group', average='token', kl_coef=0.3, kl_times_ratio=True),
  ], ids=str)  # fmt: skip
  def test_an_epoch_is_a_step_along_the_gradient_written_out(self, kw):
    kept, rate, other = [], 2.0, toys.table(9)
    state, (row,) = run(
      score_fn=keeping(good_tokens, kept), tx=optax.sgd(rate), ref=other,
      stop_ids=(0,), epochs=2, **kw,
    )  # fmt: skip
    (rows,) = kept
    assert rows['lengths'].min() < rows['lengths'].max()
    logps = lambda table: MODEL.logps({'embed': {'embedding': table}}, rows)
    ref = logps(other['embed']['embedding'])
    gradient = jax.value_and_grad(
      lambda table: by_hand(rows, logps(table), ref=ref, **kw)
    )
    table, losses = toys.table(0)['embed']['embedding'], []
    for _ in range(2):
      loss, grads = gradient(table)
      table, losses = table - rate * grads, [*losses, loss]
    np.testing.assert_allclose(table_of(state), table, atol=1e-5)
    assert row['loss'] == pytest.approx(np.mean(losses), abs=1e-6)

  def test_kl_pulls_to_the_reference(self):
    _, rows = run(15, score_fn=constant, ref=toys.table(9), kl_coef=1.0)
    assert rows[-1]['objective/kl'] < 0.4 * rows[0]['objective/kl']
    assert rows[0]['policy/kl'] > 0

  def test_its_mean_is_over_whole_responses(self):
    """Those from whose end nothing is learned have one as well."""
    kw = dict(ref=toys.table(9), kl_coef=0.1, stop_ids=(0,))
    _, (row,) = run(**kw)
    _, (other,) = run(mask_truncated=True, **kw)
    assert row['objective/kl'] == pytest.approx(other['objective/kl'], rel=1e-5)

  def test_clip_higher_lets_good_tokens_rise_further(self):
    kw = dict(epochs=4, tx=optax.sgd(8.0))
    narrow, (row,) = run(clip_low=0.2, clip_high=0.2, **kw)
    wide, (other,) = run(clip_low=0.2, clip_high=0.6, **kw)
    assert row['policy/clipped'] > other['policy/clipped'] > 0
    gain = lambda state: jax.nn.softmax(table_of(state))[:, GOOD].mean()
    assert gain(wide) > gain(narrow)

  def test_sequence_ratios_are_used(self):
    kw = dict(epochs=2, tx=optax.sgd(2.0), clip_low=9.0, clip_high=9.0)
    tables = [
      table_of(run(ratio=ratio, **kw)[0])
      for ratio in ('token', 'sequence', 'geometric')
    ]
    # The first update is the same, the second is not.
    assert np.abs(tables[0] - tables[1]).max() > 1e-3
    np.testing.assert_allclose(tables[1], tables[2], atol=1e-6)
    clipped = table_of(
      run(ratio='geometric', **kw | dict(clip_low=0.01, clip_high=0.01))[0]
    )
    assert np.abs(clipped - tables[2]).max() > 1e-3

  def test_importance_weights_are_those_of_the_filtered_draws(self):
    kept = []
    kw = dict(top_k=2, score_fn=keeping(good_tokens, kept))
    _, (row,) = run(importance='token', importance_cap=0.6, **kw)
    (rows,) = kept
    mask = rows['mask']
    want = np.exp(rows['logps'] - rows['sampler_logps'])[mask]
    assert (want > 0.6).any() and (want < 0.6).any()
    assert row['policy/importance'] == pytest.approx(
      np.minimum(want, 0.6).mean(), rel=1e-5
    )


class TestScores:
  def test_a_response_without_a_score_is_left_out(self):
    def some(frozen, rows):
      scores, _ = good_tokens(frozen, rows)
      return np.where(np.arange(len(scores)) % 5 == 0, np.nan, scores), {}

    kept = []
    state, (row,) = run(
      score_fn=keeping(some, kept), tx=optax.sgd(1.0), average='token'
    )
    assert row['rewards/excluded'] == 13 and np.isfinite(row['loss'])
    (rows,) = kept
    scores, _ = some(None, rows)
    adv = np.zeros(64)
    for i in range(0, 64, G):
      group = scores[i : i + G]
      there = np.isfinite(group)
      x = group[there]
      adv[i : i + G][there] = (x - x.mean()) / (x.std(ddof=1) + 1e-4)
    mask = rows['mask'] & np.isfinite(scores)[:, None]

    def loss(table):
      logps = MODEL.logps({'embed': {'embedding': table}}, rows)
      return -jnp.sum(jnp.where(mask, adv[:, None] * logps, 0)) / mask.sum()

    table = toys.table(0)['embed']['embedding']
    np.testing.assert_allclose(
      table_of(state), table - jax.grad(loss)(table), atol=1e-5
    )

  def test_no_scores_at_all_change_nothing(self):
    nan = lambda frozen, rows: (np.full(64, np.nan), {})
    state, (row,) = run(score_fn=nan, tx=optax.sgd(1.0))
    assert row['grad_norm'] == 0 and row['skipped'] == 0
    np.testing.assert_array_equal(table_of(state), table_of(build()[1]))

  def test_parts_are_logged_each(self):
    parts = lambda frozen, rows: (np.ones(64), {'a': np.full(64, 3.0)})
    _, (row,) = run(score_fn=parts)
    assert row['rewards/a'] == 3 and row['objective/score'] == 1

  def test_overlong_responses_pay(self):
    """Scores are equal: the penalty alone tells responses apart."""
    kw = dict(score_fn=constant, stop_ids=(0,), tx=optax.sgd(1.0))
    state, (row,) = run(overlong_cache=3, average='token', **kw)
    stop = lambda state: jax.nn.softmax(table_of(state))[:, 0].mean()
    assert stop(state) > stop(build()[1]) and row['objective/score'] == 1

  def test_truncated_responses_may_be_masked(self):
    kept = []
    kw = dict(stop_ids=(0,), average='token', tx=optax.sgd(1.0))
    masked, _ = run(
      score_fn=keeping(good_tokens, kept), mask_truncated=True, **kw
    )
    (rows,) = kept
    assert 0 < rows['finished'].mean() < 1
    scores = good_tokens(None, rows)[0].reshape(-1, G)
    adv = np.asarray(alignax.group_relative(scores)).reshape(-1, 1)
    mask = rows['mask'] & rows['finished'][:, None]

    def loss(table):
      logps = MODEL.logps({'embed': {'embedding': table}}, rows)
      return -jnp.sum(jnp.where(mask, adv * logps, 0)) / mask.sum()

    table = toys.table(0)['embed']['embedding']
    np.testing.assert_allclose(
      table_of(masked), table - jax.grad(loss)(table), atol=1e-5
    )

  def test_a_batch_of_one_prompt_and_a_group_of_one(self):
    _, (row,) = run(batch=toys.prompts(1))
    assert np.isfinite(row['loss'])
    _, (row,) = run(group=1, batch=toys.prompts(4))
    assert row['grad_norm'] == 0


def by_row(dead):
  """Scores that differ within a group, unless `dead` says so of its prompt."""

  def score_fn(frozen, rows):
    scores = np.arange(len(rows['row'])) % G
    return np.where(dead(np.asarray(rows['row'])), 1.0, scores), {}

  return score_fn


class TestDynamicSampling:
  """Rounds of 4 prompts out of batches of 12."""

  batch = toys.prompts(12)
  policy = toys.table(0)

  def collect(self, dead, *, rounds=3, batch=None, score_fn=by_row):
    rollout = rollouts.make_rollout(
      MODEL, sampling.make_sampling(), max_new_tokens=N, group=G, rounds=rounds
    )
    collect = rollouts.make_collect(
      rollout, score_fn(dead), group=G, rounds=rounds
    )
    rows, scores, metrics = collect(
      {'policy': self.policy}, {}, batch or self.batch, KEY
    )
    return jax.device_get(rows), scores, metrics

  def prompts_of(self, rows):
    assert (rows['row'].reshape(-1, G) == rows['row'][::G, None]).all()
    return rows['row'][::G].tolist()

  def test_dead_groups_are_replaced_by_those_of_further_prompts(self):
    # Prompts of the rounds: 0 3 6 9, then 1 4 7 10, then 2 5 8 11.
    rows, scores, metrics = self.collect(lambda row: row % 2 == 0)
    assert self.prompts_of(rows) == [1, 3, 7, 9]
    assert not rollouts.without_signal(scores, G).any()
    assert metrics['groups/dead'] == 0.5
    assert metrics['groups/rounds'] == 2 and metrics['groups/dead_left'] == 0
    # What was taken over are responses to those prompts, with their log-probs.
    np.testing.assert_array_equal(
      rows['inputs'][::G, :3], self.batch['inputs'][[1, 3, 7, 9]]
    )
    np.testing.assert_allclose(
      rows['logps'], MODEL.logps(self.policy, rows), atol=1e-5
    )

  def test_it_goes_on_until_the_batch_is_full(self):
    rows, _, metrics = self.collect(lambda row: row < 8)
    assert self.prompts_of(rows) == [10, 8, 11, 9]
    assert metrics['groups/rounds'] == 3 and metrics['groups/dead_left'] == 0

  def test_it_ends_after_the_rounds_and_says_what_is_left(self):
    rows, scores, metrics = self.collect(lambda row: row < 10)
    assert self.prompts_of(rows) == [10, 11, 6, 9]
    np.testing.assert_array_equal(
      rollouts.without_signal(scores, G), [False, False, True, True]
    )
    assert metrics['groups/rounds'] == 3
    assert metrics['groups/dead_left'] == 0.5

  def test_every_round_counts_what_has_no_score(self):
    def failing(dead):
      def score_fn(frozen, rows):
        scores, _ = by_row(dead)(frozen, rows)
        # Prompts 0 and 3 of the first round, 4 and 10 of the second.
        failed = np.isin(rows['row'], (0, 3, 4, 10))
        return np.where(failed, np.nan, scores), {'x/failed': failed * 1.0}

      return score_fn

    _, _, metrics = self.collect(lambda row: row < 0, score_fn=failing)
    assert metrics['groups/rounds'] == 2
    assert metrics['rewards/excluded'] == 4 * G
    assert metrics['rewards/x/failed'] == 0.5

  def test_what_is_decided_by_scores_is_decided_on_the_host(self, monkeypatch):
    seen, replacements = [], rollouts.replacements

    def noting(*given):
      seen.extend(type(scores) for scores in given[:2])
      return replacements(*given)

    monkeypatch.setattr(rollouts, 'replacements', noting)
    _, scores, metrics = self.collect(lambda row: row < 8)
    assert metrics['groups/rounds'] == 3
    assert {*seen, type(scores)} == {np.ndarray}

  def test_nothing_is_sampled_that_is_not_needed(self):
    _, _, metrics = self.collect(lambda row: row < 0)
    assert metrics['groups/rounds'] == 1

  def test_all_scores_missing_is_no_signal(self):
    nan = np.array([np.nan, np.nan, np.nan, 1, 0, np.nan, 0, 1, 2, 2, 2, 2])
    np.testing.assert_array_equal(
      rollouts.without_signal(nan, 4), [True, False, True]
    )

  def test_a_round_draws_with_its_own_key_and_again_alike(self):
    same = {k: np.repeat(v, 3, axis=0) for k, v in toys.prompts(4).items()}
    same['row'] = np.arange(12, dtype=np.int32)
    draw = lambda dead: self.collect(dead, batch=same)[0]
    first, later, again = map(
      draw, (lambda row: row < 0, lambda row: row % 3 == 0, lambda row: row < 0)
    )
    np.testing.assert_array_equal(first['inputs'], again['inputs'])
    assert (first['inputs'] != later['inputs']).any()
    assert self.prompts_of(later) == [1, 4, 7, 10]

  def test_rounds_compile_nothing(self):
    """A step that needs one round, then steps that need more."""
    dead, compiled = [lambda row: row < 0], []
    step, state, frozen = build(
      rounds=3, score_fn=lambda f, rows: by_row(dead[0])(f, rows)
    )
    state, metrics = step(state, frozen, self.batch, KEY)
    assert metrics['groups/rounds'] == 1
    dead[0] = lambda row: row % 2 == 0
    state, metrics = step(state, frozen, self.batch, KEY)  # `take_groups`.
    assert metrics['groups/rounds'] == 2
    jax.monitoring.register_event_duration_secs_listener(
      lambda name, *_, **__: compiled.append(name)
    )
    for limit in (8, 10, 0):
      dead[0] = lambda row: row < limit  # noqa: B023
      state, metrics = step(state, frozen, self.batch, KEY)
    assert not [name for name in compiled if 'backend_compile' in name]

  def test_prompts_must_divide_into_rounds(self):
    with pytest.raises(ValueError, match='12 rows does not split into 5'):
      self.collect(lambda row: row < 0, rounds=5)
