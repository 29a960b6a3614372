"""PPO: sample responses, score them, estimate advantages, update.

  prompts  --rollout-->   rows with old log-probs   policy
           --score-->     one score a row           reward model or checker
           --estimate-->  advantages and returns    value model, reference
           --improve-->   new state                 clipped losses

Past the prompts every array is [B, T]. Details after Ouyang et al. 2022
(https://arxiv.org/abs/2203.02155) and Huang et al. 2024
(https://arxiv.org/abs/2403.17031).
"""

import functools

import jax
import jax.numpy as jnp

from alignax import (
  advantages,
  inner_steps,
  losses,
  rewards,
  sampling,
  train,
  weights,
)
from alignax.models import values_of
from alignax.numerics import choose

DATA = 'prompts'
TRAINED = ('policy', 'value')
FROZEN = ('ref', 'reward')
GROUP = 1  # Responses to a prompt.


def roles(*, shared_value=False, score_fn=None, **_):
  """(trained, frozen) roles: fewer where a model is shared or not needed."""
  trained = ('policy',) if shared_value else TRAINED
  return trained, FROZEN if score_fn is None else ('ref',)


def check_kw(*, kl_in='reward', kl_kind='k1', target_kl=0.0, **_):
  """Raises for arguments that cannot be."""
  if kl_in not in ('reward', 'loss'):
    raise ValueError(f"kl_in is {kl_in!r}; it is 'reward' or 'loss'.")
  choose('kl_kind', kl_kind, {'k1': 1, 'k2': 1, 'k3': 1})
  if kl_in == 'loss' and kl_kind == 'k1':
    raise ValueError(
      "kl_kind 'k1' has no gradient on average; with kl_in='loss' take 'k2' "
      "or 'k3'."
    )
  if target_kl < 0:
    raise ValueError(f'target_kl is {target_kl}; it is 0 (fixed) or positive.')


def init_extra(*, kl_coef=0.05, **_):
  """What the state carries besides parameters: the KL coefficient adapts."""
  return {'kl_coef': jnp.float32(kl_coef)}


def updates_per_step(*, epochs=1, minibatches=1, **_):
  """Optimiser steps that one rollout pays for."""
  return epochs * minibatches


def make_step(models, tx, *, score_fn=None, max_new_tokens=64,
              temperature=1.0, top_k=0, top_p=1.0, stop_ids=(),
              missing_eos_penalty=0.0, score_clip=0.0, whiten_rewards=False,
              whiten_advantages=True, kl_coef=0.05, kl_kind='k1',
              kl_in='reward', target_kl=0.0, kl_horizon=10000, gamma=1.0,
              lam=0.95, clip=0.2, dual_clip=0.0, value_clip=0.2,
              value_coef=0.1, entropy_coef=0.0, ptx_coef=0.0,
              shared_value=False, epochs=1, minibatches=1, stop_kl=0.0,
              join=train.separate, **update_kw):  # fmt: skip
  """Makes `step(state, frozen, prompts, key) -> (state, metrics)`.

  Args:
    models: 'policy' (the reference is the same model); 'value' unless it is
      shared; 'reward' unless there is a `score_fn`.
    tx: the optimiser; it takes `epochs * minibatches` updates a step.
    score_fn: (frozen, rows) -> (scores [B], parts {name: [B]}), on the device
      or on the host, see `alignax.rewards`; None asks the reward model. A
      response whose score is NaN is left out.
    max_new_tokens: of a response.
    temperature, top_k, top_p, stop_ids: of sampling. Log-probs are at the
      temperature everywhere: rollout, reference and update.
    missing_eos_penalty: taken from the score of a response that did not end.
    score_clip: largest absolute score; 0 clips nothing.
    whiten_rewards: unit variance for rewards, their mean kept.
    whiten_advantages: zero mean and unit variance for advantages.
    kl_coef: cost of KL to the reference, at the start if it adapts.
    kl_kind: estimator, 'k1', 'k2' or 'k3'; see `alignax.kl_estimate`.
    kl_in: 'reward', or 'loss' (k2 or k3; k1 has no gradient there).
    target_kl: KL of a response, in nats, to which the coefficient adapts
      (Ziegler et al., section 2.2, https://arxiv.org/abs/1909.08593); 0: fixed.
    kl_horizon: number of responses over which it adapts.
    gamma, lam: of the advantage estimate.
    clip, value_clip: of the policy ratio and of the value.
    dual_clip: bound on the ratio where the advantage is negative too, see
      `alignax.clipped_policy_loss`; 0: none.
    value_coef, entropy_coef: weights of the value loss and entropy bonus.
    ptx_coef: weight of the language loss on `prompts['ptx']`, a 'text' batch.
    shared_value: whether the value head sits on the policy itself.
    epochs, minibatches: passes over the rollout, and parts of a pass.
    stop_kl: when a minibatch is further than this from the rollout policy
      (k3, nats a token), the rest of the step is left out; 0: never.
    join, **update_kw: see `train.make_update`.
  """
  check_kw(kl_in=kl_in, kl_kind=kl_kind, target_kl=target_kl)
  draw = sampling.make_sampling(
    temperature=temperature, top_k=top_k, top_p=top_p, stop_ids=stop_ids
  )
  read = functools.partial(
    _logps_and_values, models, shared_value, draw.logp_temperature
  )
  score_fn = score_fn or rewards.reward_model_scores(
    models['reward'], join=join
  )

  @jax.jit
  def rollout(params, frozen, prompts, key):
    params, _ = join(params, frozen)
    return sampling.sample(
      models['policy'],
      params['policy'],
      prompts,
      key,
      draw,
      max_new_tokens=max_new_tokens,
    )

  def estimate(params, frozen, rows, scores, coef):
    params, frozen = join(params, frozen)
    rows, scores, scored = rewards.leave_out(rows, scores)
    ref_logps = models['policy'].logps(
      frozen['ref'], rows, temperature=draw.logp_temperature
    )
    _, values, _ = read(params, rows)
    kl = losses.kl_estimate(rows['logps'], ref_logps, kind=kl_kind)
    mask = rows['mask']
    if score_clip:
      scores = jnp.clip(scores, -score_clip, score_clip)
    scores -= missing_eos_penalty * ~rows['finished']
    gains = advantages.shaped_rewards(
      scores, kl, mask, kl_coef=coef if kl_in == 'reward' else 0.0
    )
    if whiten_rewards:
      gains = advantages.whiten(gains, mask, shift=False)
    adv, returns = advantages.gae(gains, values, mask, gamma=gamma, lam=lam)
    if whiten_advantages:
      adv = advantages.whiten(adv, mask)
    batch = {k: rows[k] for k in TOKENS} | dict(
      ref_logps=ref_logps, values=values, advantages=adv, returns=returns
    )
    return batch, _objective(rows, ref_logps, scores, scored, coef)

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    logps, values, entropy = read(params, batch, entropy=entropy_coef != 0)
    policy_loss, metrics = losses.clipped_policy_loss(
      logps,
      batch['logps'],
      batch['advantages'],
      clip_low=clip,
      clip_high=clip,
      dual_clip=dual_clip or None,
    )
    if kl_in == 'loss':
      kl = losses.kl_estimate(logps, batch['ref_logps'], kind=kl_kind)
      policy_loss += batch['kl_coef'][:, None] * kl
    if entropy_coef:
      policy_loss -= entropy_coef * entropy
      metrics['policy/entropy'] = entropy
    value_loss, value_metrics = losses.clipped_value_loss(
      values, batch['values'], batch['returns'], clip=value_clip
    )
    terms = {
      'policy': (policy_loss, metrics),
      'value': (value_coef * value_loss, value_metrics),
    }
    if ptx_coef:
      nll = -models['policy'].logps(params['policy'], batch['ptx'])
      terms['ptx'] = (ptx_coef * nll, {'ptx/nll': nll})
    return terms

  def weigh(batch):
    on_tokens = weights.per_token(batch['mask'])
    shares = {'policy': on_tokens, 'value': on_tokens}
    if ptx_coef:
      shares['ptx'] = weights.per_token(batch['ptx']['mask'])
    return shares

  update = inner_steps.make_updates(
    loss_fn,
    tx,
    weigh=weigh,
    epochs=epochs,
    minibatches=minibatches,
    stop_kl=stop_kl,
    join=join,
    **update_kw,
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def learn(state, frozen, rows, scores, ptx, key):
    coef = state.extra['kl_coef']
    batch, objective = estimate(state.params, frozen, rows, scores, coef)
    batch['kl_coef'] = jnp.full(scores.shape, coef)
    if ptx_coef:
      batch['ptx'] = ptx
    state, metrics = update(state, frozen, batch, key)
    if target_kl:
      kl = objective['objective/kl']
      error = jnp.clip(kl / target_kl - 1, -0.2, 0.2)
      adapted = coef * (1 + error * len(scores) / kl_horizon)
      # It has no way back from NaN, and is no part of what a skipped update
      # leaves as it was.
      coef = jnp.where(jnp.isfinite(kl), adapted, coef)
      state = state.replace(extra={'kl_coef': coef})
    return state, metrics | objective

  def step(state, frozen, prompts, key):
    rollout_key, learn_key = jax.random.split(
      jax.random.fold_in(key, state.step)
    )
    tokens = {k: prompts[k] for k in ('inputs', 'segments', 'positions')}
    rows = rollout(state.params, frozen, tokens, rollout_key)
    scores, parts = score_fn(frozen, rows | {'row': prompts.get('row')})
    ptx = prompts.get('ptx')
    state, metrics = learn(state, frozen, rows, scores, ptx, learn_key)
    metrics['tokens'] = sampling.num_tokens(rows)
    return state, metrics | rewards.summary(scores, parts)

  return step


TOKENS = ('inputs', 'targets', 'segments', 'positions', 'mask', 'logps')


def _logps_and_values(models, shared, temperature, params, batch, *,
                      entropy=False):  # fmt: skip
  """Log-probs, values and (or None) entropies of a batch, all [B, T]."""
  policy, policy_params = models['policy'], params['policy']
  hidden = policy.hidden(policy_params, batch)
  stats = policy.head_stats_of(
    policy_params, hidden, batch, temperature=temperature, entropy=entropy
  )
  if shared:
    values = values_of(policy_params, hidden)
  else:
    values = models['value'].values(params['value'], batch)
  return stats.logps, values, stats.entropy


def _objective(rows, ref_logps, scores, scored, coef):
  """What the step is after, as means over the responses with a score."""
  mean = lambda x: rewards.mean_of(x.astype(jnp.float32), scored)
  mask = rows['mask']
  kl = jnp.sum(rows['logps'] - ref_logps, axis=1, where=mask)
  surprise = -jnp.sum(rows['logps'], where=mask)
  score = mean(scores)
  return {
    'objective/score': score,
    'objective/score_std': jnp.sqrt(mean((scores - score) ** 2)),
    'objective/kl': mean(kl),
    'objective/reward': mean(scores - coef * kl),
    'objective/entropy': surprise / jnp.maximum(jnp.sum(mask), 1),
    'objective/length': mean(rows['lengths']),
    'objective/finished': mean(rows['finished']),
    'kl_coef': coef,
  }
