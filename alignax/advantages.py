"""From rewards to advantages. Nothing here has a gradient to follow."""

import chex
import jax
import jax.numpy as jnp

from alignax.numerics import as_bools, choose, matched, widened
from alignax.types import Array


def shaped_rewards(
  scores: Array, kl: Array, mask: Array, *, kl_coef: float
) -> Array:
  """The reward of every token: a KL cost, and the score at the last token.

    r_t = -κ KL_t + score · [t is the last token in the mask]

  The score comes with the last token itself (the end-of-turn token, where there
  is one), so a response that was cut short is treated like one that ended.

  See Ziegler et al., eq. 2 (https://arxiv.org/abs/1909.08593).

  Args:
    scores: one for every response, [B].
    kl: an estimate for every token, as `kl_estimate` gives it, [B, T].
    mask: the tokens of the response, [B, T].
    kl_coef: κ.

  Returns:
    rewards [B, T], zero off the mask. A response without tokens has none.
  """
  chex.assert_equal_shape([kl, mask])
  chex.assert_equal_shape_prefix([scores, kl], 1)
  (scores,), (kl,) = widened(scores), matched(kl=kl)
  mask = as_bools('mask', mask)
  steps = jnp.arange(mask.shape[-1])
  last = jnp.max(jnp.where(mask, steps, -1), axis=-1, keepdims=True)
  at_last = jnp.where(steps == last, scores[..., None], 0.0)
  return jnp.where(mask, at_last - kl_coef * kl, 0.0)


def gae(
  rewards: Array,
  values: Array,
  mask: Array,
  *,
  gamma: float = 1.0,
  lam: float = 0.95,
) -> tuple[Array, Array]:
  """Generalised advantage estimation over the tokens in `mask`.

    δ_t = r_t + γ V_{t+1} - V_t        A_t = δ_t + γλ A_{t+1}

  where t + 1 is the next token *in the mask*: padding at either end and text
  that the policy did not write (a tool's answer) are stepped over. The value
  after the last token is zero, as a response is a whole episode.

  See Schulman et al., eq. 16 (https://arxiv.org/abs/1506.02438).

  Args: rewards, values, mask: [B, T].
  Returns: advantages and returns (advantages + values), zero off the mask.
  """
  chex.assert_rank([rewards, values, mask], 2)
  chex.assert_equal_shape([rewards, values, mask])
  rewards, values = jax.lax.stop_gradient(matched(rewards, values=values))
  dtype = jnp.result_type(rewards, values)
  mask = as_bools('mask', mask)

  def backward(carry, xs):
    next_advantage, next_value = carry
    reward, value, is_token = xs
    delta = reward + gamma * next_value - value
    advantage = delta + gamma * lam * next_advantage
    carry = (
      jnp.where(is_token, advantage, next_advantage),
      jnp.where(is_token, value, next_value),
    )
    return carry, advantage

  zeros = jnp.zeros(rewards.shape[:1], dtype)
  xs = (rewards.T.astype(dtype), values.T.astype(dtype), mask.T)
  _, advantages = jax.lax.scan(backward, (zeros, zeros), xs, reverse=True)
  advantages = jnp.where(mask, advantages.T, 0.0)
  return advantages, jnp.where(mask, advantages + values, 0.0)


def whiten(
  x: Array, mask: Array, *, shift: bool = True, eps: float = 1e-8
) -> Array:
  """Zero mean and unit variance over `mask`.

    x̃ = (x - mean) / √(var + ε)

  The variance has Bessel's correction (n - 1). A single entry is left with
  variance zero, not 0 / 0.

  See Huang et al. (https://arxiv.org/abs/2403.17031), who count it among the
  details of PPO, for rewards (the mean stays) and for advantages.

  Args:
    x, mask: [...].
    shift: False keeps the mean, as for rewards, whose level says something.
    eps: floor of the variance.

  Returns:
    [...], zero off the mask; where all entries are equal, zero or their mean.
  """
  chex.assert_equal_shape([x, mask])
  x, mask = jax.lax.stop_gradient(widened(x)[0]), as_bools('mask', mask)
  mean, var = _moments(x, mask)
  # The mean of equal entries is off by rounding, which a small ε blows up.
  white = (x - mean) * jax.lax.rsqrt(var + eps) * _differ(x, mask)
  return jnp.where(mask, white if shift else white + mean, 0.0)


def group_relative(
  scores: Array,
  *,
  scale: str = 'group',
  eps: float = 1e-4,
  exists: Array | None = None,
) -> Array:
  """GRPO: a score relative to the other responses to its prompt.

    A = (r - mean_group) / (std + ε)

  The std has Bessel's correction (n - 1). A group whose scores are all equal,
  or which has one score, gets advantages of zero.

  See Shao et al., section 4.1.2 (https://arxiv.org/abs/2402.03300); without a
  scale it is Dr. GRPO (https://arxiv.org/abs/2503.20783).

  Args:
    scores: one row for every prompt, [P, G].
    scale: 'group' divides by the std of the group, 'batch' by that of all
      scores, 'none' by nothing.
    eps: added to the std; may be 0.
    exists: bool [P, G]; False where a response was not scored (a checker that
      failed): it is left out of mean and std, and its advantage is zero.

  Returns:
    advantages [P, G].
  """
  scores, exists = _scores(scores, exists)
  mean, var = _moments(scores, exists, axis=1)
  scales = {
    'group': lambda: jnp.sqrt(var) + eps,
    'batch': lambda: jnp.sqrt(_moments(scores, exists)[1]) + eps,
    'none': lambda: jnp.ones(()),
  }
  divisor = choose('scale', scale, scales)()
  advantages = (scores - mean) / jnp.where(divisor > 0, divisor, 1.0)
  # The mean of equal scores is them but for rounding, which a small ε blows up.
  return jnp.where(exists & _differ(scores, exists, axis=1), advantages, 0.0)


def leave_one_out(scores: Array, *, exists: Array | None = None) -> Array:
  """RLOO: a score minus the mean of the others of its prompt.

    A_i = r_i - mean of r_j over j ≠ i

  A response that has no others gets an advantage of zero.

  See Ahmadian et al., section 2 (https://arxiv.org/abs/2402.14740).

  Args: scores [P, G]; exists, bool [P, G], as for `group_relative`.
  Returns: advantages [P, G].
  """
  scores, exists = _scores(scores, exists)
  count = jnp.sum(exists, axis=1, keepdims=True)
  mean = jnp.sum(scores, axis=1, keepdims=True, where=exists) / jnp.maximum(
    count, 1
  )
  # r - (n mean - r) / (n - 1), written without the difference of large sums.
  advantages = (scores - mean) * (count / jnp.maximum(count - 1, 1))
  return jnp.where(exists & (count > 1), advantages, 0.0)


def reinforce_plus_plus(
  rewards: Array, mask: Array, *, gamma: float = 1.0
) -> Array:
  """REINFORCE++: returns to go, whitened over the whole batch; no critic.

    A_t = whiten(Σ_{i ≥ t} γ^{i-t} r_i)

  The rewards hold the KL cost of every token (`shaped_rewards`). For the
  variant with a baseline, subtract the mean of a prompt's scores first.

  See Hu et al. (https://arxiv.org/abs/2501.03262): "global advantage
  normalization".

  Args: rewards, mask: [B, T].
  Returns: advantages [B, T], zero off the mask.
  """
  (rewards,) = widened(rewards)
  returns, _ = gae(rewards, jnp.zeros_like(rewards), mask, gamma=gamma, lam=1.0)
  return whiten(returns, mask)


def remax(scores: Array, greedy_scores: Array) -> Array:
  """ReMax: the score minus that of the greedy response to the same prompt.

    A = r(y) - r(ŷ)   with   ŷ_t = argmax_v π(v)

  See Li et al., algorithm 1 (https://arxiv.org/abs/2310.10505).

  Args: scores, greedy_scores: [B].
  Returns: advantages [B].
  """
  scores, greedy_scores = matched(scores, greedy_scores)
  return jax.lax.stop_gradient(scores - greedy_scores)


def overlong_penalty(lengths: Array, *, max_length: int, cache: int) -> Array:
  """DAPO's soft punishment of responses that nearly fill their budget.

    R = -clip((n - (max_length - cache)) / cache, 0, 1)

  It is zero up to `max_length - cache` *tokens* and falls to -1 from there;
  add it to the score.

  See Yu et al., eq. 13 (https://arxiv.org/abs/2503.14476).

  Args:
    lengths: tokens of every response, [...].
    max_length: the most tokens that a response may have.
    cache: over how many of them the penalty grows, at least 1.

  Returns:
    [...], in [-1, 0].
  """
  if cache < 1:
    raise ValueError(f'cache is {cache}; give at least 1 token.')
  (lengths,) = widened(lengths)
  return -jnp.clip((lengths - (max_length - cache)) / cache, 0.0, 1.0)


def _scores(scores, exists):
  chex.assert_rank(scores, 2)
  (scores,) = jax.lax.stop_gradient(widened(scores))
  if exists is None:
    return scores, jnp.ones(scores.shape, bool)
  chex.assert_equal_shape([scores, exists])
  exists = as_bools('exists', exists)
  # A missing score may be NaN, which `where=` alone would let through.
  return jnp.where(exists, scores, 0.0), exists


def _differ(x, mask, axis=None):
  """Whether two of the masked entries differ, shaped as `_moments`."""
  kw = dict(axis=axis, where=mask, keepdims=axis is not None)
  high = jnp.max(x, initial=-jnp.inf, **kw)
  return high > jnp.min(x, initial=jnp.inf, **kw)


def _moments(x, mask, axis=None):
  """Mean and variance (n - 1) of the masked entries; 0 where there are none."""
  count = jnp.sum(mask, axis=axis, keepdims=axis is not None)
  total = jnp.sum(x, axis=axis, where=mask, keepdims=axis is not None)
  mean = total / jnp.maximum(count, 1)
  squares = jnp.sum(
    (x - mean) ** 2, axis=axis, where=mask, keepdims=axis is not None
  )
  return mean, squares / jnp.maximum(count - 1, 1)
