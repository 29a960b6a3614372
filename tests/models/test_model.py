"""The model's pure functions: heads, packing, caches, precision."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignax import models

LENGTH = 12


@functools.cache
def jitted(model, name):
  return jax.jit(getattr(model, name))


def call(model, name, *args):
  """A method of the model, compiled once for all tests."""
  return jitted(model, name)(*args)


def row(*lengths: int, learned: int = 3, seed: int = 0) -> dict:
  """One row of packed documents; the last tokens of each are learned from."""
  rng = np.random.default_rng(seed)
  inputs, segments, positions, mask = (
    np.zeros(LENGTH, np.int32) for _ in range(4)
  )
  start = 0
  for i, length in enumerate(lengths):
    end = start + length
    inputs[start:end] = rng.integers(1, 64, length)
    segments[start:end] = i + 1
    positions[start:end] = np.arange(length)
    mask[end - 1 - learned : end - 1] = 1
    start = end
  targets = np.append(inputs[1:], 0)
  return dict(
    inputs=inputs,
    targets=targets,
    segments=segments,
    positions=positions,
    mask=mask.astype(bool),
  )


def batch(*rows: dict) -> dict:
  return {k: np.stack([r[k] for r in rows]) for k in rows[0]}


def tokens(rows: dict) -> tuple:
  return tuple(rows[k] for k in ('inputs', 'segments', 'positions'))


def separate(packed: dict, segment: int) -> dict:
  """One document of a packed row, in a row of its own."""
  keep = packed['segments'] == segment
  alone = {
    k: np.concatenate([x[keep], np.zeros((~keep).sum(), x.dtype)])
    for k, x in packed.items()
  }
  alone['segments'] = (alone['segments'] > 0).astype(np.int32)
  return alone


@pytest.fixture(params=[True, False], ids=['tied', 'untied'])
def reward(request, tiny):
  """A model with a value head that is not zero."""
  model, params = tiny(tie_embeddings=request.param)
  params = models.add_value_head(params)
  assert 'lm_head' not in params
  kernel = jax.random.normal(jax.random.key(1), (32,))
  return model, params | {
    'value_head': {'kernel': kernel, 'bias': jnp.float32(0.5)}
  }


class TestScores:
  def test_read_one_past_the_last_masked_position(self, reward):
    model, params = reward
    rows = batch(row(12), row(7))
    values = call(model, 'values', params, rows)
    expected = np.stack([values[0, 11], values[1, 6]])
    np.testing.assert_array_equal(
      call(model, 'scores', params, rows)[:, 0], expected
    )

  def test_token_ids_do_not_matter(self, reward):
    """The end token repeats, is the padding token, and so on: no matter."""
    model, params = reward
    one, other = row(7), row(7)
    for r in (one, other):
      r['inputs'][4:7] = 2
    other['inputs'][7:] = 2  # Padded with the end token.
    scores = call(model, 'scores', params, batch(one, other))[:, 0]
    np.testing.assert_array_equal(scores[0], scores[1])
    values = call(model, 'values', params, batch(one))
    np.testing.assert_allclose(scores[0], values[0, 6], rtol=1e-6)

  def test_packed_documents_as_in_rows_of_their_own(self, reward):
    model, params = reward
    packed = row(5, 6)
    rows = batch(packed) | {'examples': np.ones((1, 2), bool)}
    together = call(model, 'scores', params, rows)
    assert together.shape == (1, 2)
    alone = batch(separate(packed, 1), separate(packed, 2))
    np.testing.assert_allclose(
      together[0], call(model, 'scores', params, alone)[:, 0], atol=1e-5
    )

  def test_candidates_axis(self, reward):
    model, params = reward
    flat = batch(row(12), row(7), row(9), row(4))
    pairs = {k: x.reshape(2, 2, LENGTH) for k, x in flat.items()}
    pairs['examples'] = np.ones((2, 1), bool)
    scores = call(model, 'scores', params, pairs)
    assert scores.shape == (2, 2, 1)
    np.testing.assert_allclose(
      scores.reshape(4), call(model, 'scores', params, flat)[:, 0], atol=1e-5
    )

  def test_a_fresh_head_scores_zero(self, tiny):
    model, params = tiny()
    scores = call(model, 'scores', models.add_value_head(params), batch(row(9)))
    np.testing.assert_array_equal(scores, 0)

  def test_no_language_head_left(self, tiny):
    model, params = tiny(tie_embeddings=False)
    with pytest.raises(ValueError, match='lm_head'):
      call(model, 'logits', models.add_value_head(params), row(9)['inputs'])

  def test_both_heads_from_one_pass(self, tiny):
    model, params = tiny(tie_embeddings=False)
    params = models.add_value_head(params, keep_lm_head=True)
    rows = batch(row(9))
    logps, values = call(model, 'logps_and_values', params, rows)
    expected = call(model, 'logps', params, rows)
    np.testing.assert_allclose(logps, expected, atol=1e-6)
    np.testing.assert_array_equal(values, 0)


class TestLogps:
  @pytest.mark.parametrize('softcap', [None, 2.0])
  def test_of_the_logits(self, tiny, softcap):
    model, params = tiny(final_softcap=softcap)
    rows = batch(row(12), row(5, 6))
    logits = call(model, 'logits', params, *tokens(rows))
    expected = jnp.take_along_axis(
      jax.nn.log_softmax(logits / 0.7), rows['targets'][..., None], axis=-1
    )[..., 0]
    found = jax.jit(functools.partial(model.logps, temperature=0.7))(
      params, rows
    )
    np.testing.assert_allclose(
      found, np.where(rows['mask'], expected, 0), atol=1e-5
    )

  def test_padding_may_hold_anything(self, tiny):
    model, params = tiny()
    rows = batch(row(7))
    other = dict(rows)
    other['inputs'] = np.where(rows['segments'], rows['inputs'], 9)
    np.testing.assert_array_equal(
      call(model, 'logps', params, rows), call(model, 'logps', params, other)
    )


class TestCache:
  def test_in_parts(self, tiny):
    """Parts with padding between them, which is no distance to a window."""
    model, params = tiny(window=4, local_layers=(True, False))
    whole = batch(row(9), row(6))
    full = call(model, 'logits', params, *tokens(whole))
    cache = model.init_cache(2, 2 * LENGTH)
    for start, length in ((0, 4), (4, 3)):  # Padded on the left to 5 each.
      part = [
        np.pad(whole[k][:, start : start + length], ((0, 0), (5 - length, 0)))
        for k in ('inputs', 'segments', 'positions')
      ]
      # Row 2 has 6 tokens: its second part is shorter, so it has a gap too.
      _, cache = call(model, 'extend', params, cache, *part)
    token = whole['inputs'][:, 7]
    logits, after = call(model, 'decode', params, cache, token)
    np.testing.assert_allclose(logits[0], full[0, 7], atol=1e-4)
    np.testing.assert_array_equal(after.length, 11)
    unrolled = model.for_decoding(params, cache, unroll=True)
    logits, _ = call(model, 'decode', *unrolled, token)
    np.testing.assert_allclose(logits[0], full[0, 7], atol=1e-4)


def test_bfloat16_compute_keeps_float32_heads(tiny):
  model, params = tiny()
  half = models.Model(dataclasses.replace(model.config, dtype='bfloat16'))
  rows = batch(row(12))
  assert call(half, 'hidden', params, rows).dtype == jnp.bfloat16
  logps = call(half, 'logps', params, rows)
  assert logps.dtype == jnp.float32
  expected = call(model, 'logps', params, rows)
  np.testing.assert_allclose(logps, expected, atol=0.1)


def test_gradients_are_finite_where_all_is_padding(tiny):
  model, params = tiny()
  rows = batch({k: np.zeros_like(x) for k, x in row(9).items()})
  loss = lambda params: model.logps(params, rows).sum()
  grads = jax.jit(jax.grad(loss))(params)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_remat_changes_no_gradient(tiny):
  model, params = tiny()
  inputs = row(12)['inputs'][None]

  def gradients(remat):
    other = models.Model(dataclasses.replace(model.config, remat=remat))
    loss = lambda params: (other.logits(params, inputs) ** 2).mean()
    return jax.jit(jax.grad(loss))(params)

  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  expected = gradients('none')
  for remat in ('attention', 'dots', 'block'):
    jax.tree.map(close, gradients(remat), expected)


def test_config_errors():
  kw = dict(
    vocab_size=8,
    width=8,
    depth=2,
    num_heads=4,
    num_kv_heads=3,
    head_dim=2,
    mlp_width=8,
  )
  with pytest.raises(ValueError, match='num_kv_heads 3 does not divide'):
    models.Config(**kw)
  with pytest.raises(ValueError, match='local_layers names 1 layers'):
    models.Config(**kw | dict(num_kv_heads=2, local_layers=(True,)))
