"""Several rewards as one, and responses that have none."""

import numpy as np
import pytest

from alignax import rewards

NAN = np.nan


def given(*values, **parts):
  """A score function that gives what it is given."""
  scores = np.array(values, np.float32)
  return lambda frozen, rows: (scores, parts)


def rows(n):
  return {'lengths': np.arange(1, n + 1)}


def combined(n=3, **terms):
  scores, parts = rewards.weighted_sum(terms)({}, rows(n))
  as_numpy = lambda x: np.asarray(x, np.float32)
  return as_numpy(scores), {k: as_numpy(v) for k, v in parts.items()}


class TestWeightedSum:
  def test_adds_up_and_keeps_the_parts_as_they_were_given(self):
    scores, parts = combined(
      a=rewards.Term(given(1, 2, 3, form=np.array([7, 8, 9])), weight=2.0),
      b=rewards.Term(given(10, 0, -10), weight=-0.5),
    )
    np.testing.assert_allclose(scores, [2 - 5, 4, 6 + 5])
    assert set(parts) == {'a', 'a/form', 'b'}
    np.testing.assert_array_equal(parts['a'], [1, 2, 3])
    np.testing.assert_array_equal(parts['a/form'], [7, 8, 9])

  def test_a_weight_of_zero_only_logs(self):
    scores, parts = combined(
      a=rewards.Term(given(1, 2, 3)),
      b=rewards.Term(given(NAN, np.inf, 5), weight=0.0),
    )
    np.testing.assert_array_equal(scores, [1, 2, 3])
    np.testing.assert_array_equal(parts['b'], [NAN, np.inf, 5])

  def test_what_one_reward_has_no_score_for_has_none(self):
    scores, _ = combined(
      a=rewards.Term(given(1, NAN, 3)), b=rewards.Term(given(NAN, 0, 1))
    )
    np.testing.assert_array_equal(scores, [NAN, NAN, 4])

  def test_clip(self):
    scores, parts = combined(a=rewards.Term(given(-9, 1, 9), clip=2.0))
    np.testing.assert_array_equal(scores, [-2, 1, 2])
    np.testing.assert_array_equal(parts['a'], [-9, 1, 9])

  def test_a_clip_makes_no_score_of_what_is_infinite(self):
    for standardise in (False, True):
      scores, parts = combined(
        4,
        a=rewards.Term(
          given(1, np.inf, -np.inf, -1), clip=2.0, standardise=standardise
        ),
      )
      np.testing.assert_array_equal(
        np.isfinite(scores), [True, False, False, True]
      )
      assert rewards.summary(scores, parts)['rewards/excluded'] == 2

  def test_standardised_rewards_do_not_know_their_scale(self):
    values = np.array([1.0, 4.0, -2.0, 0.5])
    term = lambda x: rewards.Term(given(*x), standardise=True)
    one, _ = combined(4, a=term(values))
    two, _ = combined(4, a=term(100 * values - 7))
    np.testing.assert_allclose(one, two, atol=1e-5)
    np.testing.assert_allclose(one.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(one.std(ddof=1), 1, atol=1e-5)

  def test_they_are_standardised_over_those_that_there_are(self):
    scores, _ = combined(
      4, a=rewards.Term(given(1, NAN, 3, 5), standardise=True)
    )
    np.testing.assert_allclose(scores, [-1, NAN, 0, 1], atol=1e-5)
    equal, _ = combined(a=rewards.Term(given(2, 2, 2), standardise=True))
    np.testing.assert_array_equal(equal, [0, 0, 0])
    (one,), _ = combined(1, a=rewards.Term(given(2), standardise=True))
    assert one == 0

  def test_the_clip_comes_after(self):
    scores, _ = combined(
      a=rewards.Term(given(0, 0, 300), standardise=True, clip=0.5)
    )
    np.testing.assert_allclose(scores, [-0.5, -0.5, 0.5])


class TestSummary:
  def test_means_over_those_that_were_scored(self):
    scores, parts = rewards.weighted_sum({
      'a': rewards.Term(given(1, NAN, 3)), 'b': rewards.Term(given(4, 5, 6))
    })({}, rows(3))  # fmt: skip
    found = rewards.summary(scores, parts)
    assert {k: float(v) for k, v in found.items()} == {
      'rewards/a': 2, 'rewards/b': 5, 'rewards/excluded': 1,
    }  # fmt: skip

  def test_nothing_was_scored(self):
    found = rewards.summary(np.array([NAN, NAN]), {'a': np.array([NAN, NAN])})
    assert found['rewards/a'] == 0 and found['rewards/excluded'] == 2


def test_what_further_batches_left_out():
  one, two = (
    rewards.summary(np.array(scores), {'a': scores, 'a/failed': failed})
    for scores, failed in (
      (np.array([1.0, NAN]), np.array([0.0, 1.0])),
      (np.array([NAN, NAN]), np.array([1.0, 1.0])),
    )
  )
  found = rewards.with_left_out(one | {'groups/dead': 1.0}, [two])
  assert {k: float(v) for k, v in found.items()} == {
    'rewards/a': 1, 'rewards/a/failed': 0.75, 'rewards/excluded': 3,
    'groups/dead': 1,
  }  # fmt: skip


def test_leave_out():
  mask = np.ones((3, 4), bool)
  batch, scores, scored = rewards.leave_out(
    {'mask': mask, 'x': 1}, np.array([1.0, NAN, np.inf], np.float32)
  )
  np.testing.assert_array_equal(scored, [True, False, False])
  np.testing.assert_array_equal(scores, [1, 0, 0])
  np.testing.assert_array_equal(batch['mask'], mask & scored[:, None])
  assert batch['x'] == 1


class TestLength:
  def test_the_penalty_counts_tokens(self):
    score_fn = rewards.overlong_scores(max_length=10, cache=4)
    scores, parts = score_fn({}, {'lengths': np.array([1, 6, 8, 10, 12])})
    np.testing.assert_allclose(scores, [0, 0, -0.5, -1, -1])
    assert parts == {}

  @pytest.mark.parametrize('kw', [
    dict(max_length=4, cache=5), dict(max_length=4, cache=0)
  ])  # fmt: skip
  def test_settings_that_make_no_sense(self, kw):
    with pytest.raises(ValueError, match='cache is .* of a max_length of 4'):
      rewards.overlong_scores(**kw)
