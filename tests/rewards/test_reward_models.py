"""Reward models as score functions, alone and together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_worlds as worlds

from alignax import rewards, sharding
from alignax.rewards.models import pessimistic

MODEL = worlds.make_model(depth=1)
OTHER = worlds.make_model(depth=1, mlp_width=24)
SCORES = jnp.array([[1.0, 4.0], [3.0, 4.0], [8.0, 4.0]])  # [M, B]


def params(seed, model=MODEL):
  return worlds.make_params(model, seed, value_head=True)


ROWS = worlds.text(3)


def alone(model, own):
  return np.asarray(model.scores(own, ROWS)[:, 0])


@pytest.mark.parametrize('penalty, want', [
  ('mean', [4, 4]),
  ('worst', [1, 4]),
  ('std', [4 - 0.5 * np.sqrt(26 / 3), 4]),
  ('variance', [4 - 0.5 * 26 / 3, 4]),
])  # fmt: skip
def test_pessimistic(penalty, want):
  found = pessimistic(SCORES, penalty=penalty, coef=0.5)
  np.testing.assert_allclose(found, want, rtol=1e-6)


def test_a_penalty_that_is_none():
  with pytest.raises(ValueError, match="'median'; it is one of mean, std"):
    rewards.ensemble_scores({'a': MODEL}, penalty='median')


def test_a_reward_model_reads_its_role():
  frozen = {'reward': params(0), 'harmless': params(1)}
  for role in frozen:
    scores, parts = rewards.reward_model_scores(MODEL, role=role)(frozen, ROWS)
    np.testing.assert_allclose(scores, alone(MODEL, frozen[role]), rtol=1e-5)
    assert parts == {}


def test_roles_are_joined_before_they_are_read():
  def join(trained, frozen):
    assert trained == {}
    return trained, {'reward': frozen['base']}

  score_fn = rewards.reward_model_scores(MODEL, join=join)
  own = params(0)
  scores, _ = score_fn({'base': own}, ROWS)
  np.testing.assert_allclose(scores, alone(MODEL, own), rtol=1e-5)


class TestEnsemble:
  def test_is_made_of_its_members(self):
    members = {'a': MODEL, 'b': OTHER, 'c': MODEL}
    frozen = {r: params(i, m) for i, (r, m) in enumerate(members.items())}
    frozen['ref'] = {}  # And of nothing else.
    score_fn = rewards.ensemble_scores(members, penalty='std', coef=2.0)
    scores, parts = score_fn(frozen, ROWS)
    each = np.stack([alone(m, frozen[r]) for r, m in members.items()])
    assert each.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(parts['mean'], each.mean(0), rtol=1e-4)
    np.testing.assert_allclose(parts['std'], each.std(0), rtol=1e-4)
    want = each.mean(0) - 2 * each.std(0)
    np.testing.assert_allclose(scores, want, atol=1e-4)

  def test_members_that_agree_cost_nothing(self):
    frozen = dict.fromkeys(('a', 'b'), params(0))
    members = {'a': MODEL, 'b': MODEL}
    for penalty in ('std', 'variance', 'worst'):
      score_fn = rewards.ensemble_scores(members, penalty=penalty, coef=9.0)
      scores, _ = score_fn(frozen, ROWS)
      np.testing.assert_allclose(scores, alone(MODEL, frozen['a']), rtol=1e-4)

  def test_one_architecture_is_compiled_once(self):
    traced = []

    @dataclasses.dataclass(frozen=True)
    class Counted:
      def scores(self, own, batch):
        traced.append(own)
        return batch['mask'].sum(axis=-1, keepdims=True) * own

    members = {role: Counted() for role in 'abc'}
    score_fn = rewards.ensemble_scores(members, penalty='worst')
    frozen = {'a': jnp.float32(3), 'b': jnp.float32(1), 'c': jnp.float32(2)}
    scores, _ = score_fn(frozen, ROWS)
    score_fn(frozen | {'a': jnp.float32(5)}, ROWS)
    np.testing.assert_array_equal(scores, ROWS['mask'].sum(axis=-1))
    assert len(traced) == 1

  def test_on_a_mesh_it_scores_the_same(self):
    members = {'a': MODEL, 'b': MODEL}
    frozen = {'a': params(0), 'b': params(1)}
    rows = worlds.text(8)
    score_fn = rewards.ensemble_scores(members)
    want, _ = score_fn(frozen, rows)
    mesh = worlds.make_mesh((2, 2, 2))
    with jax.set_mesh(mesh):
      placed = worlds.place(mesh, frozen)
      found, _ = rewards.ensemble_scores(members)(
        placed, sharding.shard_batch(mesh, rows)
      )
    np.testing.assert_allclose(found, want, atol=1e-5)
