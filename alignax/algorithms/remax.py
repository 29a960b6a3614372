"""ReMax: REINFORCE, where the greedy response to a prompt is the baseline.

  prompts  --sample-->    a response, and the greedy one   policy
           --score-->     both                             rewards
           --estimate-->  returns to go of score - greedy score - κ KL
           --update-->    one step of REINFORCE

One sample a prompt is enough, and no value model is kept; the greedy response
costs a second rollout. There is one update a rollout, on the policy that it
came from, so there is no ratio and nothing to clip.

See Li et al., algorithm 1 (https://arxiv.org/abs/2310.10505).
"""

import functools

import jax
import jax.numpy as jnp

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
GROUP = 1  # Responses to a prompt.
SCORED_APART = 'samples with greedy responses'


def roles(*, kl_coef=0.05, score_fn=None, **_):
  """(trained, frozen) roles: those that something asks for."""
  wanted = {'ref': kl_coef > 0, 'reward': score_fn is None}
  return TRAINED, tuple(role for role in FROZEN if wanted[role])


def make_step(models, tx, *, score_fn=None, max_new_tokens=64, temperature=1.0,
              top_k=0, top_p=1.0, stop_ids=(), kl_coef=0.05,
              join=train.separate, **update_kw):  # fmt: skip
  """Makes `step(state, frozen, prompts, key) -> (state, metrics)`.

  Args:
    models: 'policy' (the reference is the same model), and 'reward' unless
      there is a `score_fn`.
    tx: the optimiser.
    score_fn: (frozen, rows) -> (scores, parts), see `alignax.rewards`. It is
      asked twice; a response without a finite score, or whose greedy one has
      none, is left out.
    max_new_tokens: of a response.
    temperature, top_k, top_p, stop_ids: of sampling. Log-probs are at the
      temperature everywhere.
    kl_coef: κ, cost of the KL of every token to the reference; 0: no reference.
    join, **update_kw: see `train.make_update`.
  """
  policy = models['policy']
  draw, greedy_draw = (
    sampling.make_sampling(
      temperature=t, top_k=top_k, top_p=top_p, stop_ids=stop_ids
    )
    for t in (temperature, 0.0)
  )
  read = functools.partial(policy.logps, temperature=draw.logp_temperature)
  make_rollout = functools.partial(
    rollouts.make_rollout, policy, max_new_tokens=max_new_tokens, join=join
  )
  score_fn = score_fn or rewards.reward_model_scores(
    models['reward'], join=join
  )
  collect = rollouts.make_collect(make_rollout(draw), score_fn, group=1)
  greedy_rollout = make_rollout(greedy_draw)

  def estimate(params, frozen, rows, scores, greedy_scores):
    _, frozen = join(params, frozen)
    gained = advantages.remax(scores, greedy_scores)
    rows, gained, scored = rewards.leave_out(rows, gained)
    batch, mask = {k: rows[k] for k in rollouts.TOKENS}, rows['mask']
    kl, metrics = jnp.zeros(mask.shape), {}
    if kl_coef:
      ref_logps = read(frozen['ref'], rows)
      kl = losses.kl_estimate(rows['logps'], ref_logps, kind='k1')
      metrics['objective/kl'] = rollouts.mean_kl(rows, ref_logps, scored)
    gains = advantages.shaped_rewards(gained, kl, mask, kl_coef=kl_coef)
    # Returns to go: what was before a token is not its doing.
    batch['advantages'], _ = advantages.gae(
      gains, jnp.zeros(mask.shape), mask, gamma=1.0, lam=1.0
    )
    greedy_mean = rewards.mean_of(greedy_scores, jnp.isfinite(greedy_scores))
    return batch, metrics | {'objective/greedy_score': greedy_mean}

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    logps = read(params['policy'], batch)
    return {'policy': losses.policy_gradient_loss(logps, batch['advantages'])}

  update = train.make_update(loss_fn, tx, join=join, **update_kw)

  @functools.partial(jax.jit, donate_argnums=0)
  def learn(state, frozen, rows, scores, greedy_scores, key):
    batch, metrics = estimate(state.params, frozen, rows, scores, greedy_scores)
    # A mean over responses of sums over their tokens.
    share = {'policy': weights.per_budget(batch['mask'], length=1)}
    state, found = update(state, frozen, batch, share, key)
    return state, found | metrics

  def step(state, frozen, prompts, key):
    sample_key, learn_key = jax.random.split(
      jax.random.fold_in(key, state.step)
    )
    rows, scores, seen = collect(state.params, frozen, prompts, sample_key)
    # Nothing is drawn greedily: the key does not matter.
    greedy = greedy_rollout(state.params, frozen, prompts, sample_key)
    greedy_scores, parts = score_fn(frozen, greedy)
    others = [rewards.summary(greedy_scores, parts)]
    state, metrics = learn(
      state, frozen, rows, scores, greedy_scores, learn_key
    )
    return state, metrics | rewards.with_left_out(seen, others)

  return step
