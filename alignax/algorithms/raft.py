"""RAFT: rejection sampling as a step: imitate the best of G responses.

  prompts  --sample-->  G responses to each    policy
           --score-->   one score a response   rewards
           --rank-->    the best of each prompt
           --imitate--> SFT on those

Every step samples from the policy as it is, so the data gets better with it.

See Dong et al., algorithm 1 (https://arxiv.org/abs/2304.06767); with a
`min_score` for verifiable rewards, Xiong et al., section 2
(https://arxiv.org/abs/2504.11343).
"""

import functools

import jax
import jax.numpy as jnp

from alignax import (
  inner_steps,
  losses,
  rewards,
  rollouts,
  sampling,
  train,
  weights,
)

DATA = 'prompts'
TRAINED = ('policy',)
FROZEN = ('reward',)


def roles(*, score_fn=None, **_):
  """(trained, frozen) roles: the reward model, unless there is a score_fn."""
  return TRAINED, FROZEN if score_fn is None else ()


def updates_per_step(*, epochs=1, minibatches=1, **_):
  """Optimiser steps that one rollout pays for."""
  return epochs * minibatches


def make_step(models, tx, *, score_fn=None, group=4, min_score=None,
              max_new_tokens=64, temperature=1.0, top_k=0, top_p=1.0,
              stop_ids=(), epochs=1, minibatches=1, join=train.separate,
              **update_kw):  # fmt: skip
  """Makes `step(state, frozen, prompts, key) -> (state, metrics)`.

  Args:
    models: 'policy', and 'reward' unless there is a `score_fn`.
    tx: the optimiser; it takes `epochs * minibatches` updates a step.
    score_fn: (frozen, rows) -> (scores, parts), see `alignax.rewards`. A
      response whose score is not finite is never the best.
    group: G, responses to a prompt.
    min_score: a best response that is worse is not imitated; None: all are.
    max_new_tokens: of a response.
    temperature, top_k, top_p, stop_ids: of sampling; what is learned are plain
      log-probs, at a temperature of 1.
    epochs, minibatches: passes over the best responses, and parts of a pass.
    join, **update_kw: see `train.make_update`.
  """
  policy = models['policy']
  rollout = rollouts.make_rollout(
    policy,
    sampling.make_sampling(
      temperature=temperature, top_k=top_k, top_p=top_p, stop_ids=stop_ids
    ),
    max_new_tokens=max_new_tokens,
    group=group,
    join=join,
  )
  score_fn = score_fn or rewards.reward_model_scores(
    models['reward'], join=join
  )
  collect = rollouts.make_collect(rollout, score_fn, group=group)

  def select(rows, scores):
    best, _ = rollouts.best_and_worst(scores, group)
    rows = {k: rows[k] for k in rollouts.TOKENS}
    rows, scores = jax.tree.map(
      lambda x: x[:, 0],
      rollouts.take_members((rows, scores), best[:, None], group),
    )
    good = jnp.isfinite(scores)
    if min_score is not None:
      good &= scores >= min_score
    rows |= {'mask': rows['mask'] & good[:, None]}
    metrics = {
      'objective/best_score': rewards.mean_of(scores, jnp.isfinite(scores)),
      'objective/imitated': jnp.mean(good),
    }
    return rows, metrics

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    return {'nll': losses.nll_loss(policy.logps(params['policy'], batch))}

  update = inner_steps.make_updates(
    loss_fn,
    tx,
    weigh=lambda batch: {'nll': weights.per_token(batch['mask'])},
    epochs=epochs,
    minibatches=minibatches,
    join=join,
    **update_kw,
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def learn(state, frozen, rows, scores, key):
    batch, metrics = select(rows, scores)
    state, found = update(state, frozen, batch, key)
    return state, found | metrics

  return rollouts.make_step(collect, learn)
