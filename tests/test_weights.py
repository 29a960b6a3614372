"""Weights of tokens, sequences and examples."""

import jax.numpy as jnp
import numpy as np
import pytest

import alignax as ax

RAGGED = np.array([[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
PACKED = np.array([[1, 1, 1, 2], [1, 2, 2, 0], [1, 1, 2, 2]])


def close(a, b):
  np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


ALL = {
  'token': ax.per_token,
  'sequence': ax.per_sequence,
  'packed': lambda mask: ax.per_sequence(mask, jnp.asarray(PACKED)),
  'example': ax.per_example,
  'classes': lambda mask: ax.c_rlft_weights(mask, np.array([0, 1, 0])),
}


@pytest.mark.parametrize('name', ALL)
def test_sum_to_one_and_zero_off_the_mask(name):
  weights = ALL[name](RAGGED)
  assert weights.dtype == jnp.float32
  close(jnp.sum(weights), 1)
  assert not np.any(weights[~RAGGED])


@pytest.mark.parametrize('name', ALL)
def test_nothing_left_weighs_nothing(name):
  np.testing.assert_array_equal(ALL[name](np.zeros_like(RAGGED)), 0)


def test_by_hand():
  close(ax.per_token(RAGGED), RAGGED / 4)
  expected = np.array([[1, 1, 0, 1], [0, 3, 0, 0], [0, 0, 0, 0]]) / 6
  close(ax.per_sequence(RAGGED), expected)
  close(ax.per_budget(RAGGED, length=5), RAGGED / 10)
  close(ax.per_example(4), np.full(4, 0.25))
  close(ax.per_example(np.array([1, 0, 1], bool)), [0.5, 0, 0.5])


def test_packed_documents_are_sequences():
  # Four documents, but the second of row 1 and both of row 2 learn nothing.
  expected = np.array([[0.5, 0.5, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]) / 3
  close(ax.per_sequence(RAGGED, PACKED), expected)
  close(ax.per_budget(RAGGED, length=5, segments=PACKED), RAGGED / 15)


def test_packing_changes_no_weight():
  alone = ax.per_sequence(np.array([[1, 1, 0, 0], [0, 1, 1, 1]], bool))
  mask = np.array([[1, 1, 0, 0, 0, 1, 1, 1]], bool)
  segments = np.array([[1, 1, 1, 1, 2, 2, 2, 2]])
  close(ax.per_sequence(mask, segments), alone.reshape(1, 8))


def test_padding_changes_no_weight():
  padded = np.pad(RAGGED, ((0, 1), (2, 3)))
  for name in ('token', 'sequence', 'example'):
    close(ALL[name](padded)[:3, 2:6], ALL[name](RAGGED))


def test_candidates_are_sequences():
  groups = np.stack([RAGGED, RAGGED], axis=1)
  close(ax.per_sequence(groups)[:, 0], ax.per_sequence(RAGGED) / 2)


def test_worse_classes_count_less():
  mask = np.ones((2, 3), bool)
  weights = ax.c_rlft_weights(
    mask, np.array([0, 1]), rewards=(1.0, 0.1), beta=0.5
  )
  close(weights[0] / weights[1], np.exp(0.9 / 0.5))
  by_token = ax.c_rlft_weights(mask, np.array([[0, 0, 0], [1, 1, 1]]), beta=0.5)
  close(by_token, weights)
  sharp = ax.c_rlft_weights(mask, np.array([0, 1]), beta=1e-6)
  close(sharp, np.array([[1, 1, 1], [0, 0, 0]]) / 3)
