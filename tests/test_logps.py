"""Log-probs of tokens and sequences from logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alignax as ax
from alignax.logps import document_sums

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(2, 3, 7)), jnp.float32)
TARGETS = RNG.integers(0, 7, (2, 3))


def close(a, b):
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_token_logps():
  expected = jax.nn.log_softmax(LOGITS)
  expected = np.take_along_axis(expected, TARGETS[..., None], -1)[..., 0]
  close(ax.token_logps(LOGITS, TARGETS), expected)
  # No more than 16: float32 cannot hold the logits' own digits beyond.
  np.testing.assert_allclose(
    ax.token_logps(LOGITS + 16, TARGETS), expected, atol=1e-5
  )
  half = ax.token_logps(LOGITS.astype(jnp.bfloat16), TARGETS)
  assert half.dtype == jnp.float32


def test_logit_stats():
  logps = jax.nn.log_softmax(LOGITS)
  stats = ax.logit_stats(LOGITS, TARGETS)
  close(stats.logps, ax.token_logps(LOGITS, TARGETS))
  close(stats.logz, jax.nn.logsumexp(LOGITS, axis=-1))
  close(stats.mean_logps, logps.mean(-1))
  close(stats.entropy, -(jnp.exp(logps) * logps).sum(-1))


def test_entropy_at_its_ends():
  close(ax.entropy(jnp.zeros(8)), np.log(8))
  close(ax.entropy(jnp.array([1e4, 0.0, -1e4])), 0)
  assert np.all(np.isfinite(jax.grad(ax.entropy)(jnp.array([1e4, 0.0]))))
  ruled_out = jnp.array([0.0, 0.0, -jnp.inf])
  close(ax.entropy(ruled_out), np.log(2))
  assert np.all(np.isfinite(jax.grad(ax.entropy)(ruled_out)))


def test_shapes_are_checked():
  with pytest.raises(AssertionError):
    ax.token_logps(LOGITS, TARGETS[:, :2])
  with pytest.raises(AssertionError, match=r'\(2, 3\)'):
    ax.sequence_logps(jnp.zeros((2, 3)), np.ones((2, 4), bool))


def test_sequences():
  logps = jnp.array([[-1.0, -2.0, jnp.nan], [-3.0, jnp.inf, -4.0]])
  mask = np.array([[1, 1, 0], [0, 0, 1]], bool)
  close(ax.sequence_logps(logps, mask), [-3, -4])
  lengths = ax.sequence_lengths(mask)
  assert lengths.dtype == jnp.int32
  close(lengths, [2, 1])
  close(ax.sequence_logps(logps, mask & False), [0, 0])


def test_packed_documents():
  logps = jnp.arange(12.0).reshape(2, 6)
  mask = np.array([[1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0]], bool)
  segments = np.array([[1, 1, 1, 2, 2, 2], [1, 1, 3, 3, 0, 0]])
  expected = [[1, 8, 0], [7, 0, 17]]
  close(ax.sequence_logps(logps, mask, segments, 3), expected)
  close(ax.sequence_lengths(mask, segments, 3), [[2, 2, 0], [1, 0, 2]])
  # The S axis is there whenever segments are, and candidates keep theirs.
  assert ax.sequence_logps(logps, mask, segments).shape == (2, 1)
  pair = [jnp.stack([x, x], axis=1) for x in (logps, mask, segments)]
  assert ax.sequence_logps(*pair, 3).shape == (2, 2, 3)


def test_document_sums():
  x = jnp.array([[1.0, 2.0, 4.0, 8.0]])
  close(document_sums(x), [[15]])
  close(document_sums(x, np.array([[1, 1, 2, 0]])), [[3, 3, 4, 8]])
