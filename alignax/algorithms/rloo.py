"""RLOO: REINFORCE, where the other responses to a prompt are the baseline.

  prompts  --sample-->   G responses to each         policy
           --score-->    one score a response        rewards
           --compare-->  score - κ KL, less the mean of the others
           --update-->   one step of REINFORCE

A response is one action: it has one advantage, and its log-prob is the sum over
its tokens. There is one update a rollout, on the policy that it came from, so
there is no ratio and nothing to clip.

See Ahmadian et al., section 3 (https://arxiv.org/abs/2402.14740).
"""

import functools

import jax

from alignax import (
  advantages,
  losses,
  rewards,
  rollouts,
  sampling,
  train,
  weights,
)

DATA = 'prompts'
TRAINED = ('policy',)
FROZEN = ('ref', 'reward')


def roles(*, kl_coef=0.05, score_fn=None, **_):
  """(trained, frozen) roles: those that something asks for."""
  wanted = {'ref': kl_coef > 0, 'reward': score_fn is None}
  return TRAINED, tuple(role for role in FROZEN if wanted[role])


def check_kw(*, group=4, **_):
  """Raises for arguments that cannot be."""
  if group < 2:
    raise ValueError(f'group is {group}; a response needs another, at least 2.')


def learned_rows(batch_size, *, group=4, **_):
  """Rows of a step, which microbatches divide."""
  return batch_size * group


def make_step(models, tx, *, score_fn=None, group=4, max_new_tokens=64,
              temperature=1.0, top_k=0, top_p=1.0, stop_ids=(), kl_coef=0.05,
              join=train.separate, **update_kw):  # fmt: skip
  """Makes `step(state, frozen, prompts, key) -> (state, metrics)`.

  Args:
    models: 'policy' (the reference is the same model), and 'reward' unless
      there is a `score_fn`.
    tx: the optimiser.
    score_fn: (frozen, rows) -> (scores, parts), see `alignax.rewards`. A
      response whose score is not finite is left out.
    group: G, responses to a prompt, at least 2.
    max_new_tokens: of a response.
    temperature, top_k, top_p, stop_ids: of sampling. Log-probs are at the
      temperature everywhere.
    kl_coef: κ, cost of the KL of a response to the reference; 0: no reference.
    join, **update_kw: see `train.make_update`.
  """
  check_kw(group=group)
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
    metrics = {}
    if kl_coef:
      kl = rollouts.sequence_kl(rows, read(frozen['ref'], rows))
      scores -= kl_coef * kl
      metrics['objective/kl'] = rewards.mean_of(kl, scored)
    by_prompt = lambda x: x.reshape(-1, group)
    adv = advantages.leave_one_out(by_prompt(scores), exists=by_prompt(scored))
    batch = {k: rows[k] for k in rollouts.TOKENS}
    return batch | {'advantages': adv.reshape(-1)}, metrics

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    logps = read(params['policy'], batch)
    adv = batch['advantages'][:, None]
    return {'policy': losses.policy_gradient_loss(logps, adv)}

  update = train.make_update(loss_fn, tx, join=join, **update_kw)

  @functools.partial(jax.jit, donate_argnums=0)
  def learn(state, frozen, rows, scores, key):
    batch, metrics = estimate(state.params, frozen, rows, scores)
    # A mean over responses of sums over their tokens.
    share = {'policy': weights.per_budget(batch['mask'], length=1)}
    state, found = update(state, frozen, batch, share, key)
    return state, found | metrics

  return rollouts.make_step(collect, learn)
