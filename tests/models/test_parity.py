"""Tiny random models of every family give the logits of transformers."""

import jax
import numpy as np
import pytest

FAMILIES = (
  'llama',
  'llama_linear',
  'smollm2',
  'mistral',
  'qwen2',
  'qwen2_window',
  'qwen3',
  'gemma2',
  'gemma3',
)
LENGTH = 24  # Three times the sliding window.
SHORT = 15
TOLERANCE = 2e-4

every_family = pytest.mark.parametrize('name', FAMILIES)


@pytest.fixture(scope='module')
def rows():
  """Two rows of tokens, the second without its last ones."""
  inputs = np.random.default_rng(0).integers(1, 64, (2, LENGTH))
  inputs[1, SHORT:] = 0
  mask = np.ones((2, LENGTH), np.int32)
  mask[1, SHORT:] = 0
  positions = np.where(mask, np.arange(LENGTH), 0)
  return inputs.astype(np.int32), mask, positions.astype(np.int32)


@pytest.fixture(scope='module')
def reference(pair, rows):
  """`reference(name)`: transformers' logits of `rows`."""
  return lambda name: pair(name).hf_logits(*rows)


@every_family
def test_right_padded(pair, rows, reference, name):
  ours = pair(name).logits(pair(name).params, *rows)
  expected = reference(name)
  # The logits are large enough for the tolerance to mean something.
  assert np.abs(expected).max() > 1
  real = rows[1] > 0
  np.testing.assert_allclose(ours[real], expected[real], atol=TOLERANCE)


@every_family
def test_left_padded(pair, rows, reference, name):
  shift = LENGTH - SHORT
  left = [x.copy() for x in rows]
  for x in left:
    x[1] = np.roll(x[1], shift)
  ours = pair(name).logits(pair(name).params, *left)
  expected = reference(name)
  np.testing.assert_allclose(ours[0], expected[0], atol=TOLERANCE)
  np.testing.assert_allclose(
    ours[1, shift:], expected[1, :SHORT], atol=TOLERANCE
  )
  # transformers agrees with itself when it is told of the padding.
  np.testing.assert_allclose(
    pair(name).hf_logits(*left)[1, shift:],
    expected[1, :SHORT],
    atol=TOLERANCE,
  )


@every_family
def test_packed(pair, rows, reference, name):
  inputs, _, _ = rows
  first, second = 14, LENGTH - 14
  packed = np.concatenate([inputs[1, :first], inputs[0, :second]])
  segments = np.repeat([1, 2], [first, second])
  positions = np.concatenate([np.arange(first), np.arange(second)])
  twice = [
    np.stack([x, x]).astype(np.int32) for x in (packed, segments, positions)
  ]
  ours = pair(name).logits(pair(name).params, *twice)[0]
  expected = reference(name)
  np.testing.assert_allclose(ours[:first], expected[1, :first], atol=TOLERANCE)
  np.testing.assert_allclose(ours[first:], expected[0, :second], atol=TOLERANCE)


def test_defaults_of_segments_and_positions(pair, rows):
  p = pair('gemma3')
  inputs, mask, positions = rows
  both = p.logits(p.params, inputs, mask, positions)
  np.testing.assert_allclose(
    p.logits(p.params, inputs, mask)[0], both[0], atol=1e-5
  )
  np.testing.assert_allclose(p.logits(p.params, inputs)[0], both[0], atol=1e-5)


@pytest.mark.parametrize(
  'name', [f for f in FAMILIES if f not in ('llama_linear', 'qwen2')]
)
def test_cached_decode_is_the_full_forward(pair, rows, name):
  """Prefill of left-padded rows, then steps to past the window."""
  p = pair(name)
  inputs, mask, positions = (
    np.stack([x[0], np.roll(x[1], LENGTH - SHORT)]) for x in rows
  )
  full = p.logits(p.params, inputs, mask, positions)
  prompt = 11  # The short row has two tokens in it.

  @jax.jit
  def prefill(params):
    cache = p.model.init_cache(2, LENGTH)
    part = [x[:, :prompt] for x in (inputs, mask, positions)]
    return p.model.extend(params, cache, *part)[1]

  @jax.jit
  def decode(params, cache, tokens):
    def step(cache, token):
      logits, cache = p.model.decode(params, cache, token)
      return cache, logits

    return jax.lax.scan(step, cache, tokens)[1]

  steps = decode(p.params, prefill(p.params), inputs[:, prompt:].T)
  np.testing.assert_allclose(
    steps.swapaxes(0, 1), full[:, prompt:], atol=TOLERANCE
  )
