"""From rewards to advantages; the golden cases are in tests/losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alignax as ax

RNG = np.random.default_rng(1)
REWARDS, VALUES = RNG.normal(size=(2, 5, 9)).astype(np.float32)
MASK = RNG.random((5, 9)) > 0.3
MASK[0], MASK[1] = False, True


def close(a, b, **kw):
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, **kw)


def gae_loop(gamma, lam):
  """The recursion as written, over the masked tokens of each row alone."""
  advantages = np.zeros_like(REWARDS)
  for row, mask in enumerate(MASK):
    ahead = value_ahead = 0.0
    for t in np.flatnonzero(mask)[::-1]:
      delta = REWARDS[row, t] + gamma * value_ahead - VALUES[row, t]
      ahead = delta + gamma * lam * ahead
      value_ahead = VALUES[row, t]
      advantages[row, t] = ahead
  return advantages


class TestGae:
  @pytest.mark.parametrize('gamma, lam', [(0.9, 0.8), (1.0, 0.95)])
  def test_gaps_in_the_mask(self, gamma, lam):
    advantages, returns = ax.gae(REWARDS, VALUES, MASK, gamma=gamma, lam=lam)
    close(advantages, gae_loop(gamma, lam))
    close(returns, np.where(MASK, advantages + VALUES, 0))

  def test_lambda_0_is_the_td_error(self):
    full = np.ones_like(MASK)
    advantages, _ = ax.gae(REWARDS, VALUES, full, gamma=0.9, lam=0.0)
    ahead = np.pad(VALUES[:, 1:], ((0, 0), (0, 1)))
    close(advantages, REWARDS + 0.9 * ahead - VALUES)

  def test_lambda_1_is_return_minus_value(self):
    full = np.ones_like(MASK)
    advantages, returns = ax.gae(REWARDS, VALUES, full, gamma=1.0, lam=1.0)
    to_go = np.cumsum(REWARDS[:, ::-1], axis=1)[:, ::-1]
    close(returns, to_go)
    close(advantages, to_go - VALUES)

  def test_what_is_off_the_mask_does_not_matter(self):
    noise = np.where(MASK, 0, np.nan).astype(np.float32)
    found = ax.gae(REWARDS + noise, VALUES + noise, MASK)
    close(found, ax.gae(REWARDS, VALUES, MASK))
    padded = [np.pad(x, ((0, 0), (2, 3))) for x in (REWARDS, VALUES, MASK)]
    close(
      np.asarray(ax.gae(*padded))[:, :, 2:-3], ax.gae(REWARDS, VALUES, MASK)
    )

  def test_bfloat16(self):
    half = [jnp.asarray(x, jnp.bfloat16) for x in (REWARDS, VALUES)]
    assert ax.gae(*half, MASK)[0].dtype == jnp.float32

  def test_shapes(self):
    with pytest.raises(AssertionError, match=r'\(5, 9\)'):
      ax.gae(REWARDS, VALUES[:, :8], MASK)


class TestShapedRewards:
  def test_score_at_the_last_token_and_not_an_integer(self):
    mask = np.array([[0, 1, 1, 0], [1, 1, 0, 1], [0, 0, 0, 0]], bool)
    kl = jnp.full((3, 4), 0.5)
    rewards = ax.shaped_rewards(
      jnp.array([0.9, -0.9, 5]), kl, mask, kl_coef=0.1
    )
    expected = [
      [0, -0.05, 0.85, 0],
      [-0.05, -0.05, 0, -0.95],
      [0, 0, 0, 0],
    ]
    close(rewards, expected)

  def test_all_reward_arrives(self):
    rewards = ax.shaped_rewards(
      REWARDS[:, 0], jnp.zeros((5, 9)), MASK, kl_coef=0.1
    )
    close(rewards.sum(1)[1:], REWARDS[1:, 0])


class TestWhiten:
  def test_moments(self):
    white = ax.whiten(REWARDS, MASK)
    close(white[MASK].mean(), 0)
    close(white[MASK].std(ddof=1), 1)
    assert not np.any(white[~MASK])
    kept = ax.whiten(REWARDS, MASK, shift=False)
    close(kept[MASK].mean(), REWARDS[MASK].mean())

  @pytest.mark.parametrize('entries', [0, 1])
  def test_too_few_entries(self, entries):
    mask = np.arange(4) < entries
    assert np.all(np.isfinite(ax.whiten(np.ones(4, np.float32), mask)))
    same = ax.whiten(np.full(4, 3.0, np.float32), np.ones(4, bool))
    close(same, 0)

  @pytest.mark.parametrize('value', [-3.3, 7.7, 1000.3])
  def test_equal_entries_are_no_more_than_rounding_apart(self, value):
    # Their mean is not them to the last bit.
    x = np.full((8, 16), value, np.float32)
    mask = np.ones(x.shape, bool)
    assert not np.any(ax.whiten(x, mask))
    close(ax.whiten(x, mask, shift=False), x)
    assert not np.any(ax.reinforce_plus_plus(x * (mask.cumsum(1) == 16), mask))


class TestGroups:
  scores = np.array([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]], np.float32)

  def test_centred(self):
    for scale in ('group', 'batch', 'none'):
      close(ax.group_relative(self.scores, scale=scale).sum(1), 0)
    close(ax.group_relative(self.scores, scale='none')[0], [-2, -1, 3])
    close(ax.leave_one_out(self.scores)[0], [-3, -1.5, 4.5])

  def test_equal_scores_and_single_ones(self):
    for fn in (ax.group_relative, ax.leave_one_out):
      close(fn(self.scores)[1], 0)
      close(fn(np.array([[3.0]])), 0)
      close(fn(self.scores, exists=np.zeros((2, 3), bool)), 0)

  def test_missing_scores_are_left_out(self):
    scores = np.array([[1.0, np.nan, 2.0, 6.0], [4.0, 4.0, np.nan, 4.0]])
    exists = np.isfinite(scores)
    for fn in (ax.group_relative, ax.leave_one_out):
      found = fn(scores, exists=exists)
      close(found[exists], fn(self.scores).ravel())
      assert not np.any(found[~exists])
    one = ax.leave_one_out(scores, exists=exists & (scores < 2))
    close(one, 0)

  def test_levels_do_not_matter(self):
    for fn in (ax.group_relative, ax.leave_one_out):
      close(fn(self.scores + 100), fn(self.scores))

  def test_unknown_scale(self):
    with pytest.raises(ValueError, match='batch'):
      ax.group_relative(self.scores, scale='prompt')


def test_reinforce_plus_plus():
  advantages = ax.reinforce_plus_plus(REWARDS, MASK)
  to_go = np.cumsum(np.where(MASK, REWARDS, 0)[:, ::-1], axis=1)[:, ::-1]
  close(advantages, ax.whiten(to_go, MASK))


def test_remax():
  close(ax.remax(np.array([1.0, 0.5]), np.array([0.25, 1.0])), [0.75, -0.5])


def test_overlong_penalty_counts_tokens():
  lengths = np.array([10, 80, 90, 100, 130])
  penalty = ax.overlong_penalty(lengths, max_length=100, cache=20)
  close(penalty, [0, 0, -0.5, -1, -1])


def test_no_gradient_flows_through_advantages():
  def total(x):
    out = [ax.gae(x, x, MASK)[0], ax.whiten(x, MASK), ax.group_relative(x)]
    out += [
      ax.leave_one_out(x),
      ax.remax(x, x),
      ax.reinforce_plus_plus(x, MASK),
    ]
    return sum(jnp.sum(x) for x in out)

  close(jax.grad(total)(jnp.asarray(REWARDS)), 0)
