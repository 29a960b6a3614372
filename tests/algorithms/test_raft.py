"""RAFT: the best of a group is imitated, and nothing else."""

import jax.numpy as jnp
import numpy as np
import online_worlds as online
import pytest

from alignax import rollouts
from alignax.algorithms import raft

G = 4


def nll(rows, chosen):
  mask = np.zeros_like(rows['mask'])
  mask[chosen] = rows['mask'][chosen]
  return lambda logps: -jnp.sum(jnp.where(mask, logps, 0)) / mask.sum()


def best_of(scores):
  return np.arange(len(scores) // G) * G + scores.reshape(-1, G).argmax(1)


def test_an_update_by_hand():
  moved, (rows,), metrics = online.one_update(raft, group=G)
  scores, _ = online.good_tokens(None, rows)
  best = best_of(scores)
  want = online.gradient(nll(rows, best), rows)
  np.testing.assert_allclose(moved, want, atol=1e-5)
  assert metrics['objective/best_score'] == pytest.approx(
    scores[best].mean(), rel=1e-5
  )
  assert metrics['objective/imitated'] == 1


def test_what_is_not_good_enough_is_not_imitated():
  moved, (rows,), metrics = online.one_update(raft, group=G, min_score=0.5)
  scores, _ = online.good_tokens(None, rows)
  best = best_of(scores)
  good = best[scores[best] >= 0.5]
  assert 0 < len(good) < len(best)
  want = online.gradient(nll(rows, good), rows)
  np.testing.assert_allclose(moved, want, atol=1e-5)
  assert metrics['objective/imitated'] == len(good) / len(best)


def test_best_and_worst_of_a_group():
  nan = np.nan
  scores = np.array(
    [1, 3, 3, 2, nan, 5, 4, nan, nan, nan, nan, nan, 2, 2, 2, 2]
  )
  best, worst = rollouts.best_and_worst(scores, 4)
  np.testing.assert_array_equal(best, [1, 1, 0, 0])
  np.testing.assert_array_equal(worst, [0, 2, 0, 0])
  members = jnp.stack([best, worst], axis=1)
  rows = {'a': np.arange(16), 'b': np.arange(32).reshape(16, 2)}
  taken = rollouts.take_members(rows, members, 4)
  np.testing.assert_array_equal(taken['a'], [[1, 0], [5, 6], [8, 8], [12, 12]])
  np.testing.assert_array_equal(taken['b'][..., 0], 2 * taken['a'])
