"""Nash-MD: a policy gradient on the chance to beat an opponent.

  prompts  --sample-->  a response of the policy, and one of the opponent
           --score-->   the chance that the first is preferred
           --update-->  one step of REINFORCE on that chance, with a KL

The opponent is the geometric mixture of policy and reference, which draws the
game to its equilibrium: preferences need not be those of any reward, and may go
round in circles.

See Munos et al., section 7 (https://arxiv.org/abs/2312.00886).
"""

import functools

import jax
import jax.numpy as jnp

from alignax import losses, rewards, rollouts, sampling, train, weights
from alignax.sampling.mixture import Mixture

DATA = 'prompts'
TRAINED = ('policy',)
FROZEN = ('ref', 'reward')


def roles(*, score_fn=None, **_):
  """(trained, frozen) roles: the reward model, unless there is a score_fn."""
  return TRAINED, FROZEN if score_fn is None else ('ref',)


def make_step(models, tx, *, score_fn=None, beta=0.1, mixture=0.125,
              win_probs=False, max_new_tokens=64, temperature=1.0, top_k=0,
              top_p=1.0, stop_ids=(), join=train.separate,
              **update_kw):  # fmt: skip
  """Makes `step(state, frozen, prompts, key) -> (state, metrics)`.

  Args:
    models: 'policy' (the reference is the same model), and 'reward' unless
      there is a `score_fn`.
    tx: the optimiser.
    score_fn: (frozen, rows) -> (scores, parts), see `alignax.rewards`; the two
      responses to a prompt stand next to each other. Pairs that lack a finite
      score are left out.
    beta: weight of the KL to the reference.
    mixture: share of the reference in the opponent: 0 is self-play.
    win_probs: whether scores are chances to win against the other response to
      the prompt, as those of a judge (`rewards.judge_scores`); else the chance
      is the sigmoid of the difference of scores (Bradley-Terry).
    max_new_tokens: of a response.
    temperature, top_k, top_p, stop_ids: of sampling. Log-probs are at the
      temperature everywhere.
    join, **update_kw: see `train.make_update`.
  """
  policy = models['policy']
  draw = sampling.make_sampling(
    temperature=temperature, top_k=top_k, top_p=top_p, stop_ids=stop_ids
  )
  read = functools.partial(policy.logps, temperature=draw.logp_temperature)
  kw = dict(max_new_tokens=max_new_tokens, join=join)
  rollout = rollouts.against(
    rollouts.make_rollout(policy, draw, **kw),
    rollouts.make_rollout(
      Mixture(policy, mixture),
      draw,
      whose=lambda params, frozen: (params['policy'], frozen['ref']),
      **kw,
    ),
  )
  score_fn = score_fn or rewards.reward_model_scores(
    models['reward'], join=join
  )
  collect = rollouts.make_collect(rollout, score_fn, group=2, own=1)

  def estimate(params, frozen, rows, scores):
    _, frozen = join(params, frozen)
    own, other = scores[::2], scores[1::2]
    chance = own if win_probs else jax.nn.sigmoid(own - other)
    both = jnp.isfinite(own) & jnp.isfinite(other)
    chance = jnp.where(both, chance, jnp.nan)
    batch = {k: rows[k][::2] for k in rollouts.TOKENS}
    batch, chance, scored = rewards.leave_out(batch, chance)
    batch['win_probs'] = chance
    batch['ref_logps'] = read(frozen['ref'], batch)
    return batch, {
      'objective/kl': rollouts.mean_kl(batch, batch['ref_logps'], scored),
      'objective/win_prob': rewards.mean_of(chance, scored),
    }

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    loss, _ = losses.nash_md_loss(
      read(params['policy'], batch),
      batch['ref_logps'],
      batch['win_probs'][:, None],
      beta=beta,
    )
    return {'policy': (loss, {})}

  update = train.make_update(loss_fn, tx, join=join, **update_kw)

  @functools.partial(jax.jit, donate_argnums=0)
  def learn(state, frozen, rows, scores, key):
    batch, metrics = estimate(state.params, frozen, rows, scores)
    # A mean over responses of sums over their tokens.
    share = {'policy': weights.per_budget(batch['mask'], length=1)}
    state, found = update(state, frozen, batch, share, key)
    return state, found | metrics

  return rollouts.make_step(collect, learn)
