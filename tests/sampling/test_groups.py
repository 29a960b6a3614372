"""Several responses to a prompt, which is read once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sampling_worlds as worlds

from alignax import sharding
from alignax.sampling import make_sampling, mixture, sample

N, G = 12, 3
KEY = jax.random.key(7)
STOPS = (3, 5, 11, 17)


@pytest.fixture(scope='module')
def world():
  model, params = worlds.make_model()
  return model, params, worlds.make_prompts()


def draw(world, key=KEY, *, group=G, **kw):
  model, params, prompts = world
  settings = make_sampling(**dict(stop_ids=STOPS) | kw)
  return sample(
    model, params, prompts, key, settings, max_new_tokens=N, group=group
  )


@pytest.fixture(scope='module')
def rows(world):
  return draw(world)


def test_a_group_is_the_prompt_repeated(world, rows):
  model, params, prompts = world
  repeated = jax.tree.map(lambda x: np.repeat(x, G, axis=0), prompts)
  wanted = draw((model, params, repeated), group=1)
  assert rows['inputs'].shape == (4 * G, 7 + N)
  assert rows.keys() == wanted.keys()
  for name in rows:
    np.testing.assert_allclose(rows[name], wanted[name], atol=1e-6)


def test_log_probs_are_what_training_computes(world, rows):
  model, params, _ = world
  logps = jax.jit(model.logps)(params, rows)
  np.testing.assert_allclose(rows['logps'], logps, atol=1e-5, rtol=0)
  assert np.asarray(rows['mask']).any(1).all()


def test_responses_of_a_group_differ_and_rows_of_it_are_adjacent(rows):
  for p in range(4):
    members = range(p * G, (p + 1) * G)
    prompts = {tuple(np.asarray(rows['inputs'])[i, :7]) for i in members}
    assert len(prompts) == 1
    assert len({tuple(worlds.response(rows, i)) for i in members}) > 1


def test_the_model_reads_every_prompt_once(world):
  model, params, prompts = world
  read = []

  class Counting:
    init_cache, for_decoding = model.init_cache, model.for_decoding
    decode, repeat_cache = model.decode, model.repeat_cache

    def extend(self, params, cache, inputs, *rest):
      read.append(inputs.shape)
      return model.extend(params, cache, inputs, *rest)

  draw((Counting(), params, prompts))
  assert read == [(4, 6)]


def test_a_prompt_of_one_token_has_nothing_to_read(world):
  model, params, _ = world
  rows = draw((model, params, worlds.left_pad([[4], [9]], 1)))
  assert rows['inputs'].shape == (2 * G, 1 + N)
  logps = jax.jit(model.logps)(params, rows)
  np.testing.assert_allclose(rows['logps'], logps, atol=1e-5, rtol=0)


def test_numbers_compile_nothing(world):
  draw(world)
  before = sample._cache_size()
  for kw in (dict(temperature=0.5), dict(top_k=3), dict(stop_ids=(1, 2))):
    draw(world, key=jax.random.key(1), **kw)
  assert sample._cache_size() == before


def test_a_key_for_every_response(world, rows):
  keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(4 * G))
  again = draw(world, key=keys)
  np.testing.assert_array_equal(again['inputs'], rows['inputs'])
  with pytest.raises(ValueError, match='each of the 12'):
    draw(world, key=keys[:4])
  with pytest.raises(ValueError, match='group is 0'):
    draw(world, group=0)


@pytest.mark.slow
def test_sharded_is_unsharded():
  model, params = worlds.make_model(vocab_size=40)
  prompts = worlds.make_prompts(batch=8, vocab=40)
  whole = draw((model, params, prompts))
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  with jax.set_mesh(mesh):
    spread = sharding.shard_by_rules(mesh, sharding.TRANSFORMER_RULES, params)
    params = jax.device_put(params, spread)
    rows = draw((model, params, sharding.shard_batch(mesh, prompts)))
  np.testing.assert_array_equal(rows['inputs'], whole['inputs'])
  np.testing.assert_allclose(rows['logps'], whole['logps'], atol=2e-5)
  assert rows['inputs'].sharding.spec[0] is not None  # Rows stayed apart.


@pytest.fixture(scope='module')
def other(world):
  """Parameters of another model."""
  return jax.tree.map(lambda x: x * 0.8, world[1])


class TestMixture:
  """Sampling between two models."""

  def rows(self, world, other, share, **kw):
    model, params, prompts = world
    between = mixture.Mixture(model, share)
    return draw((between, (params, other), prompts), **kw)

  @pytest.mark.parametrize('share', [0.0, 1.0])
  def test_at_its_ends_it_is_one_of_them(self, world, other, share):
    model, params, prompts = world
    rows = self.rows(world, other, share)
    alone = draw((model, other if share else params, prompts))
    np.testing.assert_array_equal(rows['inputs'], alone['inputs'])
    np.testing.assert_allclose(rows['logps'], alone['logps'], atol=1e-5)

  def test_it_is_the_geometric_mean(self, world, other):
    model, params, _ = world
    rows = self.rows(world, other, 0.25)
    read = lambda p: jax.nn.log_softmax(
      model.logits(p, rows['inputs'], rows['segments'], rows['positions'])
    )
    blend = jax.nn.log_softmax(0.75 * read(params) + 0.25 * read(other))
    wanted = jnp.take_along_axis(blend, rows['targets'][..., None], -1)[..., 0]
    mask = np.asarray(rows['mask'])
    np.testing.assert_allclose(
      np.asarray(rows['logps'])[mask], np.asarray(wanted)[mask], atol=1e-5
    )
