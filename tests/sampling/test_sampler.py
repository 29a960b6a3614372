"""Sampling agrees with the model that trains, row by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sampling_worlds as worlds

from alignax import sharding
from alignax.sampling import make_sampling, num_tokens, sample

N = 24  # Of the buffer, which every test shares: few programs are compiled.
KEY = jax.random.key(7)
STOPS = (3, 5, 11, 17)


@pytest.fixture(scope='module')
def world():
  model, params = worlds.make_model()
  return model, params, worlds.make_prompts()


def draw(world, key=KEY, **kw):
  model, params, prompts = world
  return sample(
    model, params, prompts, key, make_sampling(**kw), max_new_tokens=N
  )


def padded(prompts, width):
  """The same prompts with more padding to the left."""
  more = [(0, 0), (width - prompts['inputs'].shape[1], 0)]
  return {name: np.pad(x, more) for name, x in prompts.items()}


@pytest.fixture(scope='module')
def wide(world):
  """The same world with prompts of 16 tokens."""
  model, params, prompts = world
  return model, params, padded(prompts, 16)


def full_logits(world, rows):
  model, params, _ = world
  logits = jax.jit(model.logits)
  return logits(params, rows['inputs'], rows['segments'], rows['positions'])


def test_decoding_from_the_cache_is_the_full_forward(world):
  model, params, prompts = world
  rows = draw(world)
  names = ('inputs', 'segments', 'positions')
  extend, decode = jax.jit(model.extend), jax.jit(model.decode)
  cache = model.init_cache(4, 7 + N)
  _, cache = extend(params, cache, *(prompts[k][:, :6] for k in names))
  full = full_logits(world, rows)
  for t in range(6, 7 + N):
    logits, cache = decode(params, cache, rows['inputs'][:, t])
    np.testing.assert_allclose(logits, full[:, t], atol=2e-5, rtol=0)


def test_greedy_is_the_argmax_of_the_full_forward(world):
  rows = draw(world, temperature=0.0)
  best = jnp.argmax(full_logits(world, rows), axis=-1)
  mask = rows['mask']
  np.testing.assert_array_equal(best[mask], rows['targets'][mask])
  assert mask.sum() == 4 * N


@pytest.mark.parametrize('temperature', [0.0, 0.6, 1.0, 1.7])
def test_logps_are_what_training_computes(world, temperature):
  model, params, _ = world
  settings = make_sampling(temperature=temperature, stop_ids=STOPS)
  rows = draw(world, temperature=temperature, stop_ids=STOPS)
  logps = model.logps(params, rows, temperature=settings.logp_temperature)
  assert np.asarray(logps).any()
  np.testing.assert_allclose(rows['logps'], logps, atol=1e-5, rtol=0)
  assert not np.asarray(rows['logps'])[~np.asarray(rows['mask'])].any()


def test_logps_ignore_filters_and_sampler_logps_do_not(world):
  model, params, _ = world
  kw = dict(temperature=0.8, top_k=3, top_p=0.9, repetition_penalty=1.3)
  rows = draw(world, **kw)
  logps = model.logps(params, rows, temperature=0.8)
  np.testing.assert_allclose(rows['logps'], logps, atol=1e-5, rtol=0)
  assert (rows['sampler_logps'] != rows['logps'])[rows['mask']].all()
  plain = draw(world, temperature=0.8)
  np.testing.assert_allclose(
    plain['logps'], plain['sampler_logps'], atol=1e-6, rtol=0
  )
  assert not draw(world, temperature=0.0)['sampler_logps'].any()


def test_rows_are_a_batch_in_the_common_language(world):
  _, _, prompts = world
  rows = jax.tree.map(np.asarray, draw(world, stop_ids=STOPS))
  assert rows['inputs'].shape == (4, 7 + N)
  np.testing.assert_array_equal(rows['inputs'][:, :7], prompts['inputs'])
  np.testing.assert_array_equal(rows['targets'][:, :-1], rows['inputs'][:, 1:])
  for i in range(4):
    size = prompts['segments'][i].sum() + rows['lengths'][i]
    at = slice(7 - prompts['segments'][i].sum(), 7 + rows['lengths'][i])
    np.testing.assert_array_equal(rows['positions'][i, at], np.arange(size))
    assert rows['segments'][i, at].all() and rows['segments'][i].sum() == size
    expected = np.zeros(7 + N, bool)
    expected[6 : 6 + rows['lengths'][i]] = True
    np.testing.assert_array_equal(rows['mask'][i], expected)
    assert not rows['inputs'][i, 7 + rows['lengths'][i] :].any()
  assert num_tokens(rows) == prompts['segments'].sum() + rows['lengths'].sum()


def test_the_stop_token_is_returned_and_trained_on(world):
  rows = draw(world, stop_ids=STOPS)
  assert rows['finished'].any()
  for i in np.flatnonzero(rows['finished']):
    tokens = worlds.response(rows, i)
    assert tokens[-1] in STOPS and not np.isin(tokens[:-1], STOPS).any()
  for i in np.flatnonzero(~rows['finished']):
    assert not np.isin(worlds.response(rows, i), STOPS).any()
    assert rows['lengths'][i] == N


def test_each_of_several_stop_ids_ends_a_row(world):
  free = [worlds.response(draw(world), i) for i in range(4)]
  stops = sorted({int(row[j]) for j, row in zip((2, 4, 1, 6), free)})
  rows = draw(world, stop_ids=stops)
  for i, row in enumerate(free):
    end = np.flatnonzero(np.isin(row, stops))[0]
    np.testing.assert_array_equal(worlds.response(rows, i), row[: end + 1])


def test_a_row_depends_on_its_key_alone(world):
  """Not on the other rows, nor on how many there are."""
  model, params, prompts = world
  rows = draw(world, stop_ids=STOPS)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(4))
  for i in range(4):
    empty = [[]] * 3  # As if the other prompts had never been.
    alone = worlds.left_pad(
      [prompts['inputs'][i][prompts['segments'][i] > 0]] + empty, 7
    )
    at = jnp.array([i, 0, 0, 0])
    row = draw((model, params, alone), key=keys[at], stop_ids=STOPS)
    np.testing.assert_array_equal(row['inputs'][0], rows['inputs'][i])
    np.testing.assert_allclose(row['logps'][0], rows['logps'][i], atol=1e-6)
  two = {k: v[:2] for k, v in prompts.items()}
  pair = draw((model, params, two), stop_ids=STOPS)
  np.testing.assert_array_equal(pair['inputs'], rows['inputs'][:2])


def test_equal_prompts_get_different_responses(world):
  model, params, prompts = world
  same = {k: np.repeat(v[3:], 4, axis=0) for k, v in prompts.items()}
  rows = draw((model, params, same))
  assert len({tuple(worlds.response(rows, i)) for i in range(4)}) == 4


def test_keys_decide_the_sample(world):
  first, again = draw(world), draw(world)
  other = draw(world, key=jax.random.key(8))
  np.testing.assert_array_equal(first['inputs'], again['inputs'])
  assert (first['inputs'] != other['inputs']).any()


def test_padding_to_the_left_changes_nothing(world, wide):
  rows, narrow = draw(wide, stop_ids=STOPS), draw(world, stop_ids=STOPS)
  np.testing.assert_array_equal(rows['inputs'][:, 9:], narrow['inputs'])
  np.testing.assert_allclose(rows['logps'][:, 9:], narrow['logps'], atol=1e-5)


def test_token_ids_do_not_mean_padding(world):
  """A prompt that holds the padding id, or a stop id, keeps these tokens."""
  model, params, _ = world
  tokens = [[4, 0, 9, 0, 0, 8], [3, 2, 3], [1], [2]]
  run = lambda prompts: draw((model, params, prompts), stop_ids=(3,))
  zeros = run(worlds.left_pad(tokens, 7, pad=0))
  threes = run(worlds.left_pad(tokens, 7, pad=3))
  without = run(worlds.left_pad([[4, 9, 8], [2], [1], [2]], 7))
  np.testing.assert_array_equal(zeros['inputs'][:, 7:], threes['inputs'][:, 7:])
  np.testing.assert_array_equal(zeros['logps'], threes['logps'])
  assert not np.array_equal(zeros['logps'][:2], without['logps'][:2])


def test_an_empty_row_gets_an_empty_response(world):
  model, params, _ = world
  prompts = worlds.left_pad([[], [4, 5], [], [6]], 7)
  rows = draw((model, params, prompts))
  assert rows['lengths'].tolist() == [0, N, 0, N]
  assert not rows['mask'][::2].any() and not rows['finished'].any()
  assert np.isfinite(rows['logps']).all()


def test_a_prompt_may_be_one_token_wide(world):
  model, params, _ = world
  rows = draw((model, params, worlds.left_pad([[4], [9]], 1)), temperature=0.0)
  best = jnp.argmax(full_logits(world, rows), axis=-1)
  np.testing.assert_array_equal(best[:, :-1], rows['targets'][:, :-1])


def test_min_and_max_new_tokens(world):
  every = range(36)  # All but one token stop a row.
  rows = draw(world, stop_ids=every, min_new_tokens=4)
  assert (np.asarray(rows['lengths']) >= 5).all()
  assert all((worlds.response(rows, i)[:4] == 36).all() for i in range(4))
  assert draw(world, stop_ids=every)['lengths'].min() < 4
  rows = draw(world, max_new_tokens=3)
  assert rows['lengths'].tolist() == [3] * 4 and not rows['finished'].any()
  assert rows['mask'].sum() == 12


def test_it_stops_when_all_rows_are_done(world):
  """The program draws no token more: a model that counts its calls."""
  model, params, prompts = world
  calls = []

  class Counting:
    init_cache, extend = model.init_cache, model.extend
    for_decoding = model.for_decoding

    def decode(self, *args):
      jax.debug.callback(lambda: calls.append(1))
      return model.decode(*args)

  rows = draw((Counting(), params, prompts), stop_ids=range(0, 37, 2))
  jax.effects_barrier()
  assert len(calls) == rows['lengths'].max() < N


def test_unrolled_layers_give_the_same(world):
  model, params, prompts = world
  rows = draw(world)
  unrolled = sample(
    model, params, prompts, KEY, make_sampling(), max_new_tokens=N, unroll=True
  )
  np.testing.assert_array_equal(unrolled['inputs'], rows['inputs'])
  np.testing.assert_allclose(unrolled['logps'], rows['logps'], atol=1e-5)


def test_bfloat16_rolls_out_what_it_trains(world):
  """Weights that are cast once are those that training casts every time."""
  model, params = worlds.make_model(dtype='bfloat16', depth=1)
  params = jax.tree.map(lambda x: x * 1.01, params)  # No bfloat16 numbers.
  rows = draw((model, params, world[2]))
  logps = jax.jit(model.logps)(params, rows)
  np.testing.assert_allclose(rows['logps'], logps, atol=0.05)
  far = np.abs(rows['logps'] - logps)[rows['mask']]
  assert far.mean() < 5e-3


@pytest.mark.parametrize(
  'axes', [dict(data=8), dict(data=2, fsdp=2, tensor=2)], ids=str
)
def test_sharded_is_unsharded(axes):
  model, params = worlds.make_model(vocab_size=40)
  prompts = worlds.make_prompts(batch=8, vocab=40)
  args = (model, params, prompts, KEY, make_sampling(stop_ids=STOPS))
  whole = sample(*args, max_new_tokens=N)
  mesh = sharding.make_mesh(**axes)
  rules = sharding.TRANSFORMER_RULES
  with jax.set_mesh(mesh):
    spread = sharding.shard_by_rules(mesh, rules, params)
    params = jax.device_put(params, spread)
    prompts = sharding.shard_batch(mesh, prompts)
    args = (model, params, prompts, *args[3:])
    rows = sample(*args, max_new_tokens=N)
  np.testing.assert_array_equal(rows['inputs'], whole['inputs'])
  np.testing.assert_allclose(rows['logps'], whole['logps'], atol=2e-5)
  assert rows['inputs'].sharding.spec[0] is not None  # Rows stayed apart.


def test_changing_any_number_compiles_nothing(world):
  draw(world)
  before = sample._cache_size()
  for kw in (
    dict(temperature=0.0),
    dict(temperature=0.3, top_k=4),
    dict(top_p=0.5, min_p=0.2),
    dict(repetition_penalty=2.0, min_new_tokens=3, max_new_tokens=5),
    dict(stop_ids=(1,)),
    dict(stop_ids=(9, 8, 7)),
  ):
    draw(world, key=jax.random.key(hash(str(kw)) % 1000), **kw)
  assert sample._cache_size() == before


def test_stop_ids_of_the_first_call_are_not_remembered(world):
  free = worlds.response(draw(world, temperature=0.0), 0)
  draw(world, temperature=0.0, stop_ids=[int(free[1])])
  rows = draw(world, temperature=0.0, stop_ids=[int(free[5])])
  end = list(free).index(free[5]) + 1
  assert rows['lengths'][0] == end


@pytest.mark.parametrize(
  'kw, found',
  [
    (dict(temperature=-1.0), 'temperature is -1.0'),
    (dict(top_k=-1), 'top_k'),
    (dict(top_p=0.0), 'top_p'),
    (dict(min_p=1.5), 'min_p'),
    (dict(repetition_penalty=0.0), 'repetition_penalty'),
    (dict(min_new_tokens=9, max_new_tokens=5), 'min_new_tokens'),
    (dict(max_new_tokens=0), 'max_new_tokens'),
    (dict(stop_ids=(-1,)), 'stop_ids'),
  ],
)
def test_impossible_numbers_are_refused(kw, found):
  with pytest.raises(ValueError, match=found):
    make_sampling(**kw)


def test_malformed_prompts_are_refused(world):
  model, params, prompts = world
  run = lambda prompts, **kw: draw((model, params, prompts), **kw)
  with pytest.raises(ValueError, match='positions'):
    run({k: v for k, v in prompts.items() if k != 'positions'})
  with pytest.raises(ValueError, match='P = 0'):
    run({k: v[:, :0] for k, v in prompts.items()})
  with pytest.raises(ValueError, match='shape'):
    run(prompts, key=jax.random.split(KEY, 3))
