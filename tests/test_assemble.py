"""Parameters by role: where they come from, and in which types they stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_worlds as worlds
from ml_collections import ConfigDict

from alignax import checks, role_params
from configs import common


def make_config(**model):
  config, _ = common.base()
  fields = dict(
    vocab_size=32, width=16, depth=1, num_heads=2, num_kv_heads=2, head_dim=8,
    mlp_width=16, tie_embeddings=False,
  )  # fmt: skip
  config.model.update(**fields | model)
  return config


def load(role, **kw):
  mesh = worlds.make_mesh()
  with jax.set_mesh(mesh):
    return role_params.load_role(make_config(), role, '', mesh, **kw)[1]


def test_the_keys_of_a_config_are_those_that_are_checked():
  checks.check_config(common.base()[0])
  config = common.base()[0]
  for section, known in checks.KEYS.items():
    given = config[section] if section else config
    assert set(given) == set(known), section


def test_a_fresh_reference_is_the_fresh_policy():
  worlds.assert_trees_close(load('policy'), load('ref', frozen=True))


def test_scalar_roles_have_their_own_head_and_no_other():
  value = load('value')
  assert 'lm_head' not in value and value['value_head']['kernel'].shape == (16,)
  both = load('policy', both_heads=True)
  assert {'lm_head', 'value_head'} <= both.keys()
  assert 'value_head' not in load('policy')


@pytest.mark.parametrize('role, source', [
  ('policy', 'p'), ('ref', 'p'), ('value', 'r'), ('reward', 'r'),
])  # fmt: skip
def test_a_role_starts_like_another(role, source):
  from_ = ConfigDict(dict(ref='', value='', reward='r'))
  config = ConfigDict(dict(init_from='p', role_from=from_))
  assert role_params.source_of(config, role) == source


def test_what_is_only_read_is_kept_as_it_is_used():
  """Half the memory in bfloat16, and the same result to the last bit."""
  model = worlds.make_model(dtype='bfloat16', tie_embeddings=False)
  params = worlds.make_params(model)
  low = role_params.lower(params, 'bfloat16')
  types = {x.dtype for x in jax.tree.leaves(low)}
  assert types == {jnp.dtype('bfloat16'), jnp.dtype('float32')}
  assert low['norm']['scale'].dtype == jnp.float32
  logps = jax.jit(model.logps)
  batch = worlds.text()
  np.testing.assert_array_equal(logps(params, batch), logps(low, batch))
  reward = worlds.make_params(model, value_head=True)
  low = role_params.lower(reward, 'bfloat16')
  assert low['value_head']['kernel'].dtype == jnp.float32
