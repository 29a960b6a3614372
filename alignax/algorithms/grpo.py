"""GRPO and its kin: a response is as good as it is better than its group.

  prompts  --sample-->   G responses to each, with log-probs   policy
           --score-->    one score a response                  rewards
           --compare-->  an advantage a response               its group
           --improve-->  new state                             a policy loss

No value model, and a reference only where a KL is asked for. Which of its kin
it is, arguments say (`configs/grpo.py` has them by name):

  Dr. GRPO  scale='none', average='budget'   https://arxiv.org/abs/2503.20783
  DAPO      average='token', clip_high=0.28, rounds=3, overlong_cache=...
                                             https://arxiv.org/abs/2503.14476
  GSPO      ratio='sequence', with clips of 3e-4 and 4e-4
                                             https://arxiv.org/abs/2507.18071
  GMPO      ratio='geometric'                https://arxiv.org/abs/2507.20673
  CISPO     loss='cispo', average='token'    https://arxiv.org/abs/2506.13585
  SAPO      loss='sapo'                      https://arxiv.org/abs/2511.20347

See Shao et al., section 4.1 (https://arxiv.org/abs/2402.03300).
"""

import functools
import math

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
from alignax.losses import lookup
from alignax.numerics import choose

DATA = 'prompts'
TRAINED = ('policy',)
FROZEN = ('ref', 'reward')
TAKES = ('logps', 'old_logps', 'advantages')
LEVELS = {'none': None, 'token': 'token', 'sequence': 'sequence'}

find_loss = functools.partial(lookup.find_loss, takes=TAKES)


def roles(*, kl_coef=0.0, score_fn=None, **_):
  """(trained, frozen) roles: those that something asks for."""
  wanted = {'ref': kl_coef > 0, 'reward': score_fn is None}
  return TRAINED, tuple(role for role in FROZEN if wanted[role])


def check_kw(*, loss='clipped_policy', ratio='token', average='sequence',
             scale='group', importance='none', kl_kind='k3',
             overlong_cache=0, **_):  # fmt: skip
  """Raises for arguments that cannot be."""
  make_surrogate(loss, ratio)
  make_weigh(average, 1)
  choose('scale', scale, {'group': 1, 'batch': 1, 'none': 1})
  choose('importance', importance, LEVELS)
  if kl_kind == 'k1':
    raise ValueError(
      "kl_kind 'k1' has no gradient on average, and this KL is in the loss: "
      "take 'k2' or 'k3'."
    )
  choose('kl_kind', kl_kind, {'k2': 1, 'k3': 1})
  if overlong_cache < 0:
    raise ValueError(f'overlong_cache is {overlong_cache}; give 0 or more.')


def updates_per_step(*, epochs=1, minibatches=1, **_):
  """Optimiser steps that one rollout pays for."""
  return epochs * minibatches


def learned_rows(batch_size, *, group=8, rounds=1, **_):
  """Rows of a step, which minibatches and microbatches divide."""
  return batch_size // rounds * group


def make_step(models, tx, *, score_fn=None, group=8, rounds=1,
              max_new_tokens=64, temperature=1.0, top_k=0, top_p=1.0,
              stop_ids=(), scale='group', average='sequence',
              loss='clipped_policy', ratio='token', kl_coef=0.0, kl_kind='k3',
              kl_times_ratio=False, overlong_cache=0, mask_truncated=False,
              importance='none', importance_cap=2.0, epochs=1, minibatches=1,
              microbatches=1, ema_decay=0.0, state_sharding=None,
              join=train.separate, **loss_kw):  # fmt: skip
  """Makes `step(state, frozen, prompts, key) -> (state, metrics)`.

  Args:
    models: 'policy' (the reference is the same model), and 'reward' unless
      there is a `score_fn`.
    tx: the optimiser; it takes `epochs * minibatches` updates a step.
    score_fn: (frozen, rows) -> (scores, parts), see `alignax.rewards`. A
      response whose score is not finite is left out.
    group: G, responses to a prompt.
    rounds: more than 1 samples dynamically: a batch of prompts is dealt into as
      many parts, and later ones replace groups that teach nothing; see
      `rollouts.make_collect`.
    max_new_tokens: of a response.
    temperature, top_k, top_p, stop_ids: of sampling. Log-probs are at the
      temperature everywhere: rollout, reference and update.
    scale: of advantages, see `alignax.group_relative`.
    average: of tokens: 'token' counts each alike, 'sequence' each response,
      'budget' divides by `max_new_tokens` whatever was used of it.
    loss: name of a policy loss: 'clipped_policy', 'cispo', 'sapo', 'vespo'; or
      the dotted name of one of your own.
    ratio: of policies, 'token', 'sequence' (`alignax.sequence_ratio`) or
      'geometric' (`alignax.geometric_mean_ratio`).
    kl_coef: weight of the KL to the reference in the loss; 0: no reference.
    kl_kind: 'k2' or 'k3', see `alignax.kl_estimate`.
    kl_times_ratio: the KL of a token counts by the ratio of the policies, which
      corrects for the policy that sampled.
    overlong_cache: tokens before the end of the budget over which up to 1 is
      taken from the score, see `alignax.overlong_penalty`; 0: nothing is.
    mask_truncated: nothing is learned from responses that did not end, though
      their scores count in their groups.
    importance: weights for samples of other numerics or a filtered distribution
      (top-k, top-p): 'none', or those of every 'token' or 'sequence', see
      `alignax.truncated_importance_weights`. Ratios are then to log-probs that
      the training program computes once more.
    importance_cap: the largest of these weights.
    epochs, minibatches: passes over the rollout, and parts of a pass.
    microbatches, ema_decay, state_sharding, join: see `train.make_update`.
    **loss_kw: of the loss: `clip_low`, `clip_high`, `cap`, ...
  """
  check_kw(scale=scale, kl_kind=kl_kind, overlong_cache=overlong_cache)
  policy = models['policy']
  draw = sampling.make_sampling(
    temperature=temperature, top_k=top_k, top_p=top_p, stop_ids=stop_ids
  )
  collect = rollouts.make_collect(
    rollouts.make_rollout(
      policy,
      draw,
      max_new_tokens=max_new_tokens,
      group=group,
      rounds=rounds,
      join=join,
    ),
    score_fn or rewards.reward_model_scores(models['reward'], join=join),
    group=group,
    rounds=rounds,
  )
  surrogate = make_surrogate(loss, ratio, **loss_kw)
  weigh = make_weigh(average, max_new_tokens)
  level = choose('importance', importance, LEVELS)
  read = functools.partial(policy.logps, temperature=draw.logp_temperature)

  def estimate(params, frozen, rows, scores):
    params, frozen = join(params, frozen)
    rows, scores, scored = rewards.leave_out(rows, scores)
    if overlong_cache:
      scores += advantages.overlong_penalty(
        rows['lengths'], max_length=max_new_tokens, cache=overlong_cache
      )
    by_prompt = lambda x: x.reshape(-1, group)
    adv = advantages.group_relative(
      by_prompt(scores), scale=scale, exists=by_prompt(scored)
    )
    whole = rows
    if mask_truncated:
      rows = rows | {'mask': rows['mask'] & rows['finished'][:, None]}
    batch = {k: rows[k] for k in rollouts.TOKENS}
    batch['advantages'] = adv.reshape(-1)
    metrics = {}
    if level:
      batch['logps'] = read(params['policy'], rows)
      batch['importance'] = losses.truncated_importance_weights(
        batch['logps'],
        rows['sampler_logps'],
        rows['mask'],
        level=level,
        high=importance_cap,
      )
    if kl_coef:
      ref_logps = batch['ref_logps'] = read(frozen['ref'], whole)
      metrics['objective/kl'] = rollouts.mean_kl(whole, ref_logps, scored)
    return batch, metrics

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    logps = read(params['policy'], batch)
    value, metrics = surrogate(logps, batch)
    if level:
      value *= batch['importance']
      metrics['policy/importance'] = batch['importance']
    if kl_coef:
      old_logps = batch['logps'] if kl_times_ratio else None
      kl = losses.kl_estimate(
        logps, batch['ref_logps'], kind=kl_kind, old_logps=old_logps
      )
      value += kl_coef * kl
      metrics['policy/kl'] = kl
    return {'policy': (value, metrics)}

  update = inner_steps.make_updates(
    loss_fn,
    tx,
    weigh=weigh,
    epochs=epochs,
    minibatches=minibatches,
    means=means_of,
    microbatches=microbatches,
    ema_decay=ema_decay,
    state_sharding=state_sharding,
    join=join,
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def learn(state, frozen, rows, scores, key):
    batch, metrics = estimate(state.params, frozen, rows, scores)
    state, found = update(state, frozen, batch, key)
    return state, found | metrics

  return rollouts.make_step(collect, learn)


def make_surrogate(loss, ratio='token', **loss_kw):
  """Makes (logps, batch) -> the policy loss of every token, [B, T]."""
  policy_loss = find_loss(loss)
  takes = lookup.arguments(policy_loss)
  if ratio not in ('token', 'sequence', 'geometric'):
    raise ValueError(
      f"ratio is {ratio!r}; it is 'token', 'sequence' or 'geometric'."
    )
  if ratio != 'token' and 'ratio' not in takes:
    raise ValueError(
      f'ratio is {ratio!r}, but the loss {loss!r} knows only ratios of tokens: '
      "leave ratio='token', or take loss='clipped_policy'."
    )

  def surrogate(logps, batch):
    given = logps, batch['logps'], batch['advantages'][:, None]
    mask, kw = batch['mask'], dict(loss_kw)
    if ratio == 'sequence':
      kw['ratio'] = losses.sequence_ratio(*given[:2], mask)
    elif ratio == 'geometric':  # Tokens are clipped, their mean is not.
      clips = {k: kw.pop(k) for k in ('clip_low', 'clip_high') if k in kw}
      kw['ratio'] = losses.geometric_mean_ratio(*given, mask, **clips)
      kw |= dict(clip_low=math.inf, clip_high=math.inf)
    if 'mask' in takes:
      kw['mask'] = mask
    return policy_loss(*given, **kw)

  return surrogate


def make_weigh(average, max_new_tokens):
  """How tokens are averaged."""
  kinds = {
    'token': weights.per_token,
    'sequence': weights.per_sequence,
    'budget': functools.partial(weights.per_budget, length=max_new_tokens),
  }
  weigh = choose('average', average, kinds)
  return lambda batch: {'policy': weigh(batch['mask'])}


def means_of(metrics, weights):
  """Metrics of the policy as means: weights of a budget do not sum to one."""
  total = jnp.sum(weights['policy'])
  total = jnp.where(total > 0, total, 1.0)
  is_mean = lambda name: name.startswith('policy/')
  return {k: v / total if is_mean(k) else v for k, v in metrics.items()}
