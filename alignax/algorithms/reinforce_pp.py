"""REINFORCE++: PPO without a value model, its advantages whitened as one.

  prompts  --sample-->    responses                          policy
           --score-->     one score a response               rewards
           --estimate-->  returns to go, whitened over the whole batch
           --improve-->   clipped loss

Groups are small and their spread is noise; that of the whole batch is not. With
`baseline='group'` the mean of a prompt's scores is taken off first, and the KL
goes to the loss: REINFORCE++-baseline.

See Hu et al., section 3 (https://arxiv.org/abs/2501.03262).
"""

import functools

import jax
import jax.numpy as jnp

from alignax import (
  advantages,
  inner_steps,
  losses,
  rewards,
  rollouts,
  sampling,
  train,
  weights,
)
from alignax.numerics import choose

DATA = 'prompts'
TRAINED = ('policy',)
FROZEN = ('ref', 'reward')
BASELINES = {'none': False, 'group': True}  # Whether it is the group's mean.


def roles(*, kl_coef=0.01, score_fn=None, **_):
  """(trained, frozen) roles: those that something asks for."""
  wanted = {'ref': kl_coef > 0, 'reward': score_fn is None}
  return TRAINED, tuple(role for role in FROZEN if wanted[role])


def check_kw(*, kl_in='reward', baseline='none', group=1, **_):
  """Raises for arguments that cannot be."""
  choose('kl_in', kl_in, {'reward': 1, 'loss': 1})
  if choose('baseline', baseline, BASELINES) and group < 2:
    raise ValueError(f"group is {group}; baseline='group' needs at least 2.")


def updates_per_step(*, epochs=1, minibatches=1, **_):
  """Optimiser steps that one rollout pays for."""
  return epochs * minibatches


def learned_rows(batch_size, *, group=1, **_):
  """Rows of a step, which minibatches and microbatches divide."""
  return batch_size * group


def make_step(models, tx, *, score_fn=None, group=1, baseline='none',
              max_new_tokens=64, temperature=1.0, top_k=0, top_p=1.0,
              stop_ids=(), kl_coef=0.01, kl_in='reward', gamma=1.0,
              clip_low=0.2, clip_high=0.2, epochs=1, minibatches=1,
              join=train.separate, **update_kw):  # fmt: skip
  """Makes `step(state, frozen, prompts, key) -> (state, metrics)`.

  Args:
    models: 'policy' (the reference is the same model), and 'reward' unless
      there is a `score_fn`.
    tx: the optimiser; it takes `epochs * minibatches` updates a step.
    score_fn: (frozen, rows) -> (scores, parts), see `alignax.rewards`. A
      response whose score is not finite is left out.
    group: responses to a prompt.
    baseline: 'none', or 'group': the mean of the prompt's scores.
    max_new_tokens: of a response.
    temperature, top_k, top_p, stop_ids: of sampling. Log-probs are at the
      temperature everywhere.
    kl_coef: cost of the KL to the reference; 0: no reference.
    kl_in: 'reward', token by token (k1), or 'loss' (k2, whose gradient is that
      of the KL; the paper has it with the baseline).
    gamma: discount of the returns.
    clip_low, clip_high: of the policy ratio.
    epochs, minibatches: passes over the rollout, and parts of a pass.
    join, **update_kw: see `train.make_update`.
  """
  check_kw(kl_in=kl_in, baseline=baseline, group=group)
  by_group = BASELINES[baseline]
  policy = models['policy']
  draw = sampling.make_sampling(
    temperature=temperature, top_k=top_k, top_p=top_p, stop_ids=stop_ids
  )
  read = functools.partial(policy.logps, temperature=draw.logp_temperature)
  rollout = rollouts.make_rollout(
    policy, draw, max_new_tokens=max_new_tokens, group=group, join=join
  )
  score_fn = score_fn or rewards.reward_model_scores(
    models['reward'], join=join
  )
  collect = rollouts.make_collect(rollout, score_fn, group=group)

  def estimate(params, frozen, rows, scores):
    _, frozen = join(params, frozen)
    rows, scores, scored = rewards.leave_out(rows, scores)
    if by_group:
      by_prompt = lambda x: x.reshape(-1, group)
      scores = advantages.group_relative(
        by_prompt(scores), scale='none', exists=by_prompt(scored)
      ).reshape(-1)
    batch, mask = {k: rows[k] for k in rollouts.TOKENS}, rows['mask']
    kl, metrics = jnp.zeros(mask.shape), {}
    if kl_coef:
      batch['ref_logps'] = read(frozen['ref'], rows)
      kl = losses.kl_estimate(rows['logps'], batch['ref_logps'], kind='k1')
      metrics['objective/kl'] = rollouts.mean_kl(
        rows, batch['ref_logps'], scored
      )
    gains = advantages.shaped_rewards(
      scores, kl, mask, kl_coef=kl_coef if kl_in == 'reward' else 0.0
    )
    batch['advantages'] = advantages.reinforce_plus_plus(
      gains, mask, gamma=gamma
    )
    return batch, metrics

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    logps = read(params['policy'], batch)
    loss, metrics = losses.clipped_policy_loss(
      logps,
      batch['logps'],
      batch['advantages'],
      clip_low=clip_low,
      clip_high=clip_high,
    )
    if kl_coef and kl_in == 'loss':
      kl = losses.kl_estimate(logps, batch['ref_logps'], kind='k2')
      loss += kl_coef * kl
      metrics['policy/kl'] = kl
    return {'policy': (loss, metrics)}

  update = inner_steps.make_updates(
    loss_fn,
    tx,
    weigh=lambda batch: {'policy': weights.per_token(batch['mask'])},
    epochs=epochs,
    minibatches=minibatches,
    join=join,
    **update_kw,
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def learn(state, frozen, rows, scores, key):
    batch, metrics = estimate(state.params, frozen, rows, scores)
    state, found = update(state, frozen, batch, key)
    return state, found | metrics

  return rollouts.make_step(collect, learn)
