"""What online algorithms do before they learn: sample groups, have them scored.

A group is the G responses to one prompt; its rows stand next to each other, so
that scores [P * G] reshape to [P, G].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from alignax import rewards, sampling, sharding, train
from alignax.models.layers import shard_rows

TOKENS = ('inputs', 'targets', 'segments', 'positions', 'mask', 'logps')


def own_policy(params, frozen):
  """Samples come from the policy that is trained."""
  del frozen
  return params['policy']


def make_rollout(model, draw, *, max_new_tokens, group=1, rounds=1,
                 whose=own_policy, join=train.separate):  # fmt: skip
  """Makes a compiled `rollout(params, frozen, prompts, key, number=0)`.

  Args:
    model: to sample from.
    draw: from `sampling.make_sampling`.
    max_new_tokens: of a response.
    group: G, responses to each prompt.
    rounds: parts into which the prompts are dealt; `number` is of one of them.
    whose: (params, frozen) -> the parameters to sample from; both by role.
    join: see `train.make_update`.

  Returns:
    The rollout: prompts [P * rounds, ...] to rows [P * G, ...], as
    `sampling.sample` gives them, with the `row` of each.
  """

  @jax.jit
  def rollout(params, frozen, prompts, key, number=0):
    # Dealt as microbatches are, so that no row leaves its device.
    prompts = jax.tree.map(lambda x: x[number], train.split(prompts, rounds))
    rows = sampling.sample(
      model,
      whose(*join(params, frozen)),
      {k: prompts[k] for k in ('inputs', 'segments', 'positions')},
      jax.random.fold_in(key, number),
      draw,
      max_new_tokens=max_new_tokens,
      group=group,
    )
    if 'row' in prompts:
      rows['row'] = sampling.repeat_rows(prompts['row'], group)
    return jax.tree.map(shard_rows, rows)

  return rollout


def against(own, other):
  """Makes a rollout of groups of two: a response of each of two rollouts."""

  @jax.jit
  def pair(*rows):
    def alternate(*xs):
      stacked = jnp.stack(xs, axis=1)  # [P, 2, ...]
      return shard_rows(stacked.reshape(-1, *stacked.shape[2:]))

    return jax.tree.map(alternate, *rows)

  def rollout(params, frozen, prompts, key, number=0):
    keys = jax.random.split(key)
    return pair(*(
      draw(params, frozen, prompts, k, number)
      for draw, k in zip((own, other), keys)
    ))  # fmt: skip

  return rollout


def make_collect(rollout, score_fn, *, group, rounds=1, own=None):
  """Makes `collect(params, frozen, prompts, key) -> (rows, scores, metrics)`.

  With several rounds it samples as DAPO does (Yu et al., eq. 11,
  https://arxiv.org/abs/2503.14476): groups whose scores are all equal teach
  nothing, and are replaced by groups of further prompts, until none is left or
  the rounds are used up; groups that are left then stay, with advantages of 0.

  Further prompts come with the batch, which holds `rounds` times as many as are
  learned from: round r takes every `rounds`-th, from the r-th. So a step is
  still a function of its own batch and key, whatever was needed before, and a
  run that is resumed goes on bit for bit; to read on in the data as far as
  needed would make the place in the data part of the state. To draw again for
  the same prompts would spend the rounds on what is too hard or too easy. What
  a batch holds and a step does not need comes again in the next epoch.

  Every round runs the same compiled programs on the same shapes.

  Args:
    rollout: from `make_rollout` or `against`.
    score_fn: (frozen, rows) -> (scores, parts), see `alignax.rewards`.
    group: responses to each prompt.
    rounds: as for the rollout; 1 replaces nothing.
    own: how many of each group the metrics are about, the first ones; None is
      all of them.
  """

  def scored(params, frozen, prompts, key, number):
    rows = rollout(params, frozen, prompts, key, number)
    return rows, *score_fn(frozen, rows)

  def collect(params, frozen, prompts, key):
    rows, scores, parts = scored(params, frozen, prompts, key, 0)
    # Of the first round: how many follow depends on their scores.
    metrics = rewards.summary(scores, parts)
    metrics |= describe(rows, scores, group, own or group)
    if rounds == 1:
      return rows, scores, metrics | {'tokens': sampling.num_tokens(rows)}
    scores, number, others = to_host(scores), 1, []
    while number < rounds and without_signal(scores, group).any():
      more, more_scores, parts = scored(params, frozen, prompts, key, number)
      others.append(rewards.summary(more_scores, parts))
      more_scores = to_host(more_scores)
      source = replacements(scores, more_scores, group)
      rows = take_groups(rows, more, source, group)
      # On the host again: of a sharded array a process has its part only.
      scores = to_host(take_groups(scores, more_scores, source, group))
      number += 1
    metrics = rewards.with_left_out(metrics, others)
    left = without_signal(scores, group).mean()
    metrics |= {'groups/rounds': float(number), 'groups/dead_left': float(left)}
    return rows, scores, metrics | {'tokens': sampling.num_tokens(rows)}

  return collect


def make_step(collect, learn):
  """Makes `step(state, frozen, prompts, key)` of one rollout and its updates.

  Args:
    collect: from `make_collect`.
    learn: (state, frozen, rows, scores, key) -> (state, metrics).
  """

  def step(state, frozen, prompts, key):
    sample_key, learn_key = jax.random.split(
      jax.random.fold_in(key, state.step)
    )
    rows, scores, seen = collect(state.params, frozen, prompts, sample_key)
    state, metrics = learn(state, frozen, rows, scores, learn_key)
    return state, metrics | seen

  return step


def to_host(scores):
  """Scores as numpy: what is decided by them is decided alike on all hosts."""
  return np.asarray(sharding.to_host(jnp.asarray(scores)), np.float32)


def without_signal(scores, group: int):
  """Which groups have no two different scores, bool [P], of scores [P * G].

  A score that is not finite was not given.
  """
  scores = scores.reshape(-1, group)
  found = jnp.isfinite(scores)
  high = jnp.max(scores, axis=1, where=found, initial=-jnp.inf)
  low = jnp.min(scores, axis=1, where=found, initial=jnp.inf)
  return ~(high > low)


def replacements(scores, more_scores, group: int) -> np.ndarray:
  """Which of the new groups takes the place of each group, or -1. -> [P].

  Those without signal give way, in order, to those with one.
  """
  places = np.flatnonzero(without_signal(scores, group))
  offers = np.flatnonzero(~without_signal(more_scores, group))
  count = min(len(places), len(offers))
  source = np.full(len(scores) // group, -1, np.int32)
  source[places[:count]] = offers[:count]
  return source


@functools.partial(jax.jit, static_argnames='group')
def take_groups(kept, more, source, group: int):
  """Replaces groups by those of another rollout, as `replacements` says."""

  def pick(kept, more):
    groups = lambda x: x.reshape(-1, group, *x.shape[1:])
    moved = jnp.take(groups(more), jnp.maximum(source, 0), axis=0)
    is_new = (source >= 0).reshape(-1, *[1] * (moved.ndim - 1))
    chosen = jnp.where(is_new, moved, groups(kept))
    return shard_rows(chosen.reshape(kept.shape))

  return jax.tree.map(pick, kept, more)


@functools.partial(jax.jit, static_argnames=('group', 'own'))
def describe(rows, scores, group: int, own: int):
  """What a rollout looks like, as means over the first responses of groups."""
  dead = jnp.mean(without_signal(scores, group))
  rows, scores = jax.tree.map(
    lambda x: x.reshape(-1, group, *x.shape[1:])[:, :own], (rows, scores)
  )
  scored = jnp.isfinite(scores)
  mean = rewards.mean_of(scores, scored)
  spread = rewards.mean_of((scores - mean) ** 2, scored)
  tokens = jnp.maximum(jnp.sum(rows['mask']), 1)
  metrics = {
    'objective/score': mean,
    'objective/score_std': jnp.sqrt(spread),
    'objective/entropy': -jnp.sum(rows['logps']) / tokens,
    'objective/length': jnp.mean(rows['lengths'].astype(jnp.float32)),
    'objective/finished': jnp.mean(rows['finished'].astype(jnp.float32)),
  }
  if group > 1:
    metrics['groups/dead'] = dead
  return metrics


def sequence_kl(rows, ref_logps):
  """Estimate of the KL of every response from the reference, nats, [B]."""
  log_ratios = rows['logps'] - ref_logps
  return jnp.sum(log_ratios, axis=1, where=rows['mask'])


def mean_kl(rows, ref_logps, scored):
  """The mean of `sequence_kl` over the responses with a score, [].

  The others have lost their mask, and would count as having no KL.
  """
  return rewards.mean_of(sequence_kl(rows, ref_logps), scored)


def best_and_worst(scores, group: int):
  """Which of its group is best, and which worst: [P * G] -> [P], [P].

  Scores that are not finite come last on both sides; of equals it is the first.
  """
  scores = scores.reshape(-1, group)
  found = jnp.isfinite(scores)
  best = jnp.argmax(jnp.where(found, scores, -jnp.inf), axis=1)
  worst = jnp.argmin(jnp.where(found, scores, jnp.inf), axis=1)
  return best, worst


def take_members(tree, members, group: int):
  """Some of every group: [P * G, ...] by members [P, K] -> [P, K, ...]."""

  def take(x):
    x = x.reshape(-1, group, *x.shape[1:])
    at = members.reshape(*members.shape, *[1] * (x.ndim - 2))
    return jnp.take_along_axis(x, at, axis=1)  # Within a row: nothing moves.

  return jax.tree.map(take, tree)
