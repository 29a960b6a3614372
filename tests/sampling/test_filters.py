"""Filters agree with sorting in numpy, and draws with the probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignax.sampling import filters, make_sampling
from alignax.sampling.draws import draw_tokens

RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.standard_normal((5, 101))).astype(np.float32)


def softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True).astype(np.float64))
  return x / x.sum(-1, keepdims=True)


def kept(logits):
  return np.isfinite(np.asarray(logits))


def top_k_reference(logits, k):
  return logits >= np.sort(logits, axis=-1)[:, ::-1][:, k - 1 : k]


def top_p_reference(logits, p):
  probs = softmax(logits)
  keep = np.zeros(logits.shape, bool)
  for row, row_probs in enumerate(probs):
    order = np.argsort(-row_probs)
    enough = np.searchsorted(np.cumsum(row_probs[order]), p)
    keep[row, order[: enough + 1]] = True
  return keep


@pytest.mark.parametrize('k', [1, 2, 7, 100, 101])
def test_top_k(k):
  filtered = filters.keep_top_k(LOGITS, k)
  np.testing.assert_array_equal(kept(filtered), top_k_reference(LOGITS, k))
  keep = kept(filtered)
  np.testing.assert_array_equal(filtered[keep], LOGITS[keep])
  np.testing.assert_array_equal(kept(filters.keep_top_k(LOGITS, 500)), True)


@pytest.mark.parametrize('p', [1e-6, 0.1, 0.5, 0.9, 0.999])
def test_top_p(p):
  filtered = filters.keep_top_p(LOGITS, p)
  np.testing.assert_array_equal(kept(filtered), top_p_reference(LOGITS, p))


@pytest.mark.parametrize('p', [0.01, 0.3, 1.0])
def test_min_p(p):
  probs = softmax(LOGITS)
  expected = probs >= p * probs.max(-1, keepdims=True) * (1 - 1e-6)
  np.testing.assert_array_equal(kept(filters.keep_min_p(LOGITS, p)), expected)


def test_filters_work_in_order_on_what_is_left():
  sampling = make_sampling(top_k=20, top_p=0.8, min_p=0.05)
  left = np.where(top_k_reference(LOGITS, 20), LOGITS, -np.inf)
  left = np.where(top_p_reference(left, 0.8), LOGITS, -np.inf)
  probs = softmax(left)
  expected = probs >= 0.05 * probs.max(-1, keepdims=True)
  found = jax.jit(filters.filter_logits)(LOGITS, sampling)
  np.testing.assert_array_equal(kept(found), expected)


def test_off_means_untouched():
  found = jax.jit(filters.filter_logits)(LOGITS, make_sampling())
  np.testing.assert_array_equal(found, LOGITS)


def test_no_filter_sorts():
  text = jax.jit(filters.filter_logits).lower(LOGITS, make_sampling()).as_text()
  assert 'sort' not in text and 'case' in text


def test_ties_and_infinities():
  logits = np.array([[2, 2, 2, 1], [-np.inf, 0, -np.inf, -1]], np.float32)
  np.testing.assert_array_equal(
    kept(filters.keep_top_k(logits, 2)),
    [[True, True, True, False], [False, True, False, True]],
  )
  np.testing.assert_array_equal(
    kept(filters.keep_top_k(logits, 3)[1]), [False, True, False, True]
  )
  np.testing.assert_array_equal(
    kept(filters.keep_top_p(logits, 0.99)[1]), [False, True, False, True]
  )


def test_threshold_is_the_kth_largest():
  for k in (1, 5, 60):
    found = filters.threshold(LOGITS, jnp.ones_like(LOGITS), k)
    np.testing.assert_array_equal(found, np.sort(LOGITS)[:, -k])


@pytest.mark.parametrize('penalty', [0.5, 1.0, 1.4])
def test_repetition_penalty(penalty):
  seen = RNG.random(LOGITS.shape) < 0.3
  expected = LOGITS.copy()
  positive, negative = seen & (LOGITS > 0), seen & (LOGITS <= 0)
  expected[positive] /= np.float32(penalty)
  expected[negative] *= np.float32(penalty)
  found = filters.penalise_repeats(LOGITS, seen, penalty)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_forbid():
  ids = np.array([3, -1, 100, -1])
  found = kept(filters.forbid(LOGITS, ids, jnp.array(True)))
  assert not found[:, [3, 100]].any() and found.sum() == 5 * 99
  assert kept(filters.forbid(LOGITS, ids, jnp.array(False))).all()


def draws(logits, n, **kw):
  """Tokens drawn n times from one row of logits, and their log-probs."""
  keys = jax.random.split(jax.random.key(3), n)
  many = jnp.broadcast_to(logits, (n, len(logits)))
  draw = jax.jit(draw_tokens)
  seen = jnp.zeros(many.shape, bool)
  return draw(keys, many, seen, jnp.int32(0), make_sampling(**kw))


@pytest.mark.parametrize(
  'kw, keep',
  [
    (dict(), slice(None)),
    (dict(temperature=0.5), slice(None)),
    (dict(temperature=2.0, top_k=3), slice(3)),
    (dict(top_p=0.7), slice(2)),
    (dict(min_p=0.2), slice(4)),
  ],
)
def test_draws_follow_the_distribution(kw, keep):
  """Chi-square at the 0.1 % level, on 20,000 draws with a fixed key."""
  probs = np.array([0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
  logits = np.log(probs).astype(np.float32)
  tokens, logps, sampler_logps = draws(logits, 20000, **kw)
  scaled = softmax(logits / kw.get('temperature', 1.0))
  expected = np.zeros(6)
  expected[keep] = scaled[keep] / scaled[keep].sum()
  counts = np.bincount(tokens, minlength=6)
  assert not counts[expected == 0].any()
  counts, want = counts[expected > 0], 20000 * expected[expected > 0]
  limits = {2: 10.8, 3: 13.8, 4: 16.3, 6: 20.5}  # For n - 1 degrees of freedom.
  assert np.sum((counts - want) ** 2 / want) < limits[len(want)]
  np.testing.assert_allclose(logps, np.log(scaled)[tokens], atol=1e-5)
  drawn = np.log(expected[np.asarray(tokens)])
  np.testing.assert_allclose(sampler_logps, drawn, atol=1e-5)


def test_top_k_of_one_is_greedy():
  tokens, *_ = draws(LOGITS[0], 50, top_k=1, temperature=3.0)
  np.testing.assert_array_equal(tokens, LOGITS[0].argmax())
  tokens, *_ = draws(LOGITS[0], 50, temperature=0.0)
  np.testing.assert_array_equal(tokens, LOGITS[0].argmax())


def test_greedy_takes_the_first_of_equals():
  tokens, *_ = draws(np.array([0, 5, 1, 5], np.float32), 3, temperature=0.0)
  np.testing.assert_array_equal(tokens, 1)


def test_a_low_temperature_is_not_greedy_and_stays_finite():
  tokens, logps, _ = draws(LOGITS[0], 50, temperature=1e-6)
  np.testing.assert_array_equal(tokens, LOGITS[0].argmax())
  assert np.isfinite(logps).all()
