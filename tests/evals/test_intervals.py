"""Intervals against published numbers, and against how often they hold."""

import numpy as np
import pytest

from alignax.evals import intervals


@pytest.mark.parametrize(
  'successes, n, low, high',
  [  # Newcombe (1998), table I, method 3.
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
  ],
)
def test_wilson_is_the_published_one(successes, n, low, high):
  found = intervals.wilson(successes, n)
  np.testing.assert_allclose(found[1:3], (low, high), atol=5e-5)
  assert found.mean == successes / n


def test_wilson_holds_its_mean_and_stays_in_the_unit():
  for n in (1, 7, 200):
    for successes in (0, 1, n):
      mean, low, high, _ = intervals.wilson(successes, n)
      assert 0 <= low <= mean <= high <= 1


def test_zeros_and_ones_are_a_rate_and_others_are_resampled():
  assert intervals.estimate([1, 0, 1, 1]) == intervals.wilson(3, 4)
  found = intervals.estimate([1, 0.5, 1, 1])
  assert found == intervals.bootstrap([1, 0.5, 1, 1])


def test_bootstrap_covers_about_as_often_as_it_says():
  rng = np.random.default_rng(0)
  hits = 0
  for seed in range(200):
    _, low, high, _ = intervals.bootstrap(
      rng.normal(2.0, 1.0, 60), seed=seed, resamples=400
    )
    hits += low <= 2.0 <= high
  assert 0.89 <= hits / 200 <= 0.99


def test_weights_count():
  values, weights = [0.0, 1.0], [1.0, 3.0]
  assert intervals.estimate(values, weights).mean == 0.75


def test_little_says_little():
  assert np.isnan(intervals.bootstrap([]).mean)
  mean, low, high, n = intervals.bootstrap([3.0])
  assert (mean, n) == (3.0, 1)
  assert np.isnan([low, high]).all()
  assert intervals.wilson(0, 0)[1:] == (0.0, 1.0, 0)


def test_pairs_must_match():
  assert intervals.paired([1.0, 2.0], [0.5, 1.5])[:3] == (0.5, 0.5, 0.5)
  with pytest.raises(ValueError, match='as many'):
    intervals.paired([1.0], [1.0, 2.0])
