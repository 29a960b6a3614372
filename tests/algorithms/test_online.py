"""What holds for every online algorithm, on a policy that is a table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import online_worlds as online
import optax
import pytest
import tiny_worlds as worlds
import toy_models as toys
from online_worlds import KEY, constant, good_tokens, table_of

from alignax import sharding
from alignax.algorithms import (
  grpo,
  llama3_rounds,
  nash_md,
  online_dpo,
  raft,
  reinforce_pp,
  remax,
  rloo,
)

N = 5
# An algorithm, and what makes it learn.
CASES = {
  'dapo': (grpo, dict(group=4, rounds=2, average='token')),
  'rloo': (rloo, dict(group=4)),
  'reinforce_pp': (reinforce_pp, dict()),
  'reinforce_pp-baseline': (
    reinforce_pp, dict(group=4, baseline='group', kl_in='loss')
  ),
  'remax': (remax, dict()),
  'raft': (raft, dict(group=4)),
  'online_dpo': (online_dpo, dict(group=4)),
  'rounds': (online_dpo, dict(group=4, round_steps=2)),
  'xpo': (online_dpo, dict(loss='xpo', alpha=0.0)),
  'nash_md': (nash_md, dict(beta=0.001)),
  'llama3_rounds': (
    llama3_rounds, dict(group=4, sft_steps=2, dpo_steps=2, restart=False)
  ),
}  # fmt: skip
IMITATES = ('raft', 'llama3_rounds')  # The best of equals, too.
every = pytest.mark.parametrize('name', CASES)


def build(name, **more):
  """(step, new_state, frozen) of a case; `SCORE['fn']` scores."""
  module, kw = CASES[name]
  return online.build(
    module,
    tx=optax.adam(0.2, eps=1e-3),
    score_fn=lambda frozen, rows: SCORE['fn'](frozen, rows),
    **dict(max_new_tokens=N) | kw | more,
  )


# Scores come from the host: one compiled step serves every test of a case.
SCORE = {'fn': good_tokens}
built = functools.cache(build)


def run(name, score_fn, steps=1):
  """The last state and the metrics of every step."""
  step, state, frozen = built(name)
  state = jax.tree.map(jnp.array, state)  # The step donates it.
  SCORE['fn'], rows = score_fn, []
  for i in range(steps):
    state, metrics = step(state, frozen, toys.prompts(16, seed=i), KEY)
    rows.append({k: float(v) for k, v in metrics.items()})
  return state, rows


@every
def test_it_moves_to_the_optimum_of_a_toy(name):
  scaled = lambda frozen, rows: (10 * good_tokens(frozen, rows)[0], {})
  _, rows = run(name, scaled, 40)
  assert rows[0]['objective/score'] < 4
  # Pairs against a fixed reference are soon all won, and then teach no more.
  assert rows[-1]['objective/score'] > (6 if name == 'xpo' else 9)


@every
def test_equal_scores_teach_nothing(name):
  """No gradient but that of a KL, which is zero at the reference."""
  if name in IMITATES:
    pytest.skip('it imitates one of them')
  _, (row,) = run(name, constant)
  # What tokens cost of KL is whitened to noise: of rounding, here.
  most = 2e-3 if name == 'reinforce_pp' else 1e-6
  assert row['grad_norm'] < most


@every
def test_without_a_single_score_nothing_moves(name):
  nan = lambda frozen, rows: (np.full(len(rows['row']), np.nan), {})
  state, (row,) = run(name, nan)
  assert row['grad_norm'] == 0 and row['skipped'] == 0
  assert all(np.isfinite(value) for value in row.values())
  np.testing.assert_array_equal(
    table_of(state), toys.table(0)['embed']['embedding']
  )


@every
def test_missing_scores_do_no_harm(name):
  def some(frozen, rows):
    scores, _ = good_tokens(frozen, rows)
    return np.where(np.arange(len(scores)) % 3 == 1, np.nan, scores), {}

  _, (row,) = run(name, some)
  assert row['rewards/excluded'] > 0 and row['skipped'] == 0
  assert row['grad_norm'] > 0
  assert all(np.isfinite(value) for value in row.values())


@pytest.mark.parametrize('name', [
  'dapo', 'rloo', 'reinforce_pp', 'remax', 'nash_md'
])  # fmt: skip
def test_the_kl_is_that_of_the_responses_with_a_score(name):
  """Half of them have none, and no KL of zero for that."""

  def some(frozen, rows):
    scores, _ = good_tokens(frozen, rows)
    return np.where(np.arange(len(scores)) % 4 < 2, np.nan, scores), {}

  found, kept, (module, _) = [], [], CASES[name]
  kw = dict(ref=toys.table(9), max_new_tokens=N)
  kw |= {} if name == 'nash_md' else dict(kl_coef=0.1)
  for score_fn in (good_tokens, some):
    kw['score_fn'] = online.keeping(score_fn, kept)
    _, (row,) = online.run(module, **kw)
    found.append(row['objective/kl'])
  rows = kept[0]
  logps = online.logps_of(rows)(toys.table(9)['embed']['embedding'])
  kl = np.asarray(np.sum((rows['logps'] - logps) * rows['mask'], axis=1))
  lost = np.arange(len(kl)) % 4 < 2
  own = slice(None, None, 2 if name == 'nash_md' else 1)
  assert found[0] == pytest.approx(kl[own].mean(), rel=1e-4)
  assert found[1] == pytest.approx(kl[own][~lost[own]].mean(), rel=1e-4)


@pytest.mark.parametrize('name', [
  'rloo', 'reinforce_pp', 'remax', 'raft', 'online_dpo', 'nash_md'
])  # fmt: skip
def test_a_batch_of_one_prompt(name):
  by_place = lambda frozen, rows: (np.arange(len(rows['row'])) + 1.0, {})
  module, kw = CASES[name]
  more = dict(score_fn=by_place, max_new_tokens=N, batch=toys.prompts(1))
  _, (row,) = online.run(module, **kw | more)
  assert_defined(row)
  # Of one response, the greedy one has the same score here; and its own tokens
  # are all there is to whiten.
  assert row['grad_norm'] > 0 or name in ('remax', 'reinforce_pp')


@every
@pytest.mark.parametrize('empty', ['half', 'all'])
def test_empty_completions_do_no_harm(name, empty):
  """A prompt without tokens, which a pool pads with, is not answered."""
  step, state, frozen = built(name)
  state = jax.tree.map(jnp.array, state)
  kept, prompts = [], toys.prompts(16)
  prompts['segments'][: 8 if empty == 'half' else 16] = 0
  by_place = lambda frozen, rows: (np.arange(len(rows['row'])) % 3.0, {})
  SCORE['fn'] = online.keeping(by_place, kept)
  state, row = step(state, frozen, prompts, KEY)
  assert (kept[0]['lengths'] == 0).any()
  assert_defined(row)
  assert (row['grad_norm'] > 0) == (empty == 'half')


@every
def test_a_group_with_one_score(name):
  def first_of_group(frozen, rows):
    scores, _ = good_tokens(frozen, rows)
    return np.where(np.arange(len(scores)) % 4 == 0, scores, np.nan), {}

  _, (row,) = run(name, first_of_group)
  assert_defined(row)


@pytest.mark.parametrize(
  'kw',
  [
    dict(average='token'),
    dict(average='sequence', ratio='sequence', importance='sequence'),
    dict(average='budget', scale='none', kl_coef=0.1),
  ],
  ids=lambda kw: kw['average'],
)
def test_a_group_with_one_finished_response(kw):
  """Of a batch of one group, all but one response are masked."""
  step, start, frozen = build(
    'dapo',
    rounds=1,
    max_new_tokens=2,
    mask_truncated=True,
    stop_ids=(0,),
    **kw,
  )
  finished = []
  for seed in range(30):
    kept = []
    SCORE['fn'] = online.keeping(good_tokens, kept)
    state = jax.tree.map(jnp.array, start)
    state, row = step(state, frozen, toys.prompts(1), jax.random.key(seed))
    assert_defined(row)
    finished.append(kept[0]['finished'].sum())
    if finished[-1] == 1 and row['grad_norm'] > 0:
      break
  assert finished[-1] == 1, f'no group had one finished response: {finished}'


def assert_defined(row):
  """The update was taken, and everything that is logged is a number."""
  assert row['skipped'] == 0
  assert np.isfinite(row['grad_norm'])
  unknown = [key for key, value in row.items() if not np.isfinite(value)]
  assert not unknown


@every
def test_microbatches_change_nothing(name):
  one, (row,) = run(name, good_tokens)
  step, state, frozen = build(name, microbatches=4)
  two, other = step(state, frozen, toys.prompts(16), KEY)
  worlds.assert_trees_close(one.params, two.params, atol=2e-5)
  assert row['loss'] == pytest.approx(float(other['loss']), abs=2e-5)


@pytest.mark.parametrize('name', ['dapo', 'rounds', 'llama3_rounds'])
def test_a_run_goes_on_bit_for_bit_from_within_a_round(name):
  """A state that was written to a disk and read is all that a step needs."""
  SCORE['fn'] = good_tokens
  step, state, frozen = built(name)
  state = jax.tree.map(jnp.array, state)
  batch = lambda i: toys.prompts(16, seed=i)
  for i in range(5):
    if i == 3:
      stored = jax.tree.map(np.array, state)
    state, metrics = step(state, frozen, batch(i), KEY)
  step, _, _ = build(name)  # Another process.
  again = jax.tree.map(jnp.array, stored)
  for i in (3, 4):
    again, others = step(again, frozen, batch(i), KEY)
  jax.tree.map(np.testing.assert_array_equal, state, again)
  for key in metrics:
    assert float(metrics[key]) == float(others[key])


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', ['dapo', 'xpo', 'rounds', 'nash_md', 'llama3_rounds']
)
def test_sharded_is_unsharded(name):
  module, given = CASES[name]
  kw = dict(max_new_tokens=4, score_fn=good_tokens) | given
  model, tx = worlds.make_model(depth=1), optax.sgd(0.1)
  params, prompts = worlds.make_params(model), worlds.prompts(16)
  results = []
  for sizes in ((1, 1, 1), (2, 2, 2)):
    mesh = worlds.make_mesh(sizes)
    with jax.set_mesh(mesh):
      extra = {}
      if hasattr(module, 'init_extra'):
        extra = module.init_extra(params={'policy': params}, **kw)
      state, where = worlds.make_state(
        mesh, {'policy': params}, tx, extra=extra
      )
      step = module.make_step({'policy': model}, tx, **kw, state_sharding=where)
      frozen = worlds.place(mesh, {'ref': params})
      batch = sharding.shard_batch(mesh, prompts)
      state, metrics = step(state, frozen, batch, KEY)
    results.append(jax.device_get((state.params, metrics)))
  (one, row), (two, other) = results
  assert row['grad_norm'] > 0
  if 'policy/ratio' in row:  # The program that samples is the one that trains.
    assert row['policy/ratio'] == pytest.approx(1, abs=1e-5)
    assert other['policy/ratio'] == pytest.approx(1, abs=1e-5)
  worlds.assert_trees_close(one, two, atol=2e-5)
  assert row['loss'] == pytest.approx(other['loss'], abs=1e-5)
