"""Rounds of rejection sampling, SFT and DPO, as Llama 3 was aligned.

  round:  sampler := policy                     what the last round ended with
          [policy := where the run started]
          for sft_steps:  G responses of the sampler to each prompt, scored;
                          NLL of the best
          reference := policy
          for dpo_steps:  G responses of the sampler to each prompt, scored;
                          DPO on the best and the worst, and NLL of the best

One step function: which part of which round it is, the number of the step says.
All that a round has made is in `state.extra`, so there are no files of data in
between, and a run that is killed goes on bit for bit, from within a round too.
Every part is a training of its own: the optimiser begins anew, and with it the
warm-up; the rate is constant after that, or falls as 'rsqrt'. A schedule with
an end is refused, as it would begin again in every part and never get there.

See Dubey et al., section 4.1 (https://arxiv.org/abs/2407.21783). There people
choose what DPO learns from; here it is whatever scores.
"""

import functools

import jax
import jax.numpy as jnp

from alignax import logps, losses, rewards, rollouts, sampling, train, weights
from alignax.losses import lookup

DATA = 'prompts'
TRAINED = ('policy',)
FROZEN = ('reward',)
TAKES = (
  'chosen_logps', 'rejected_logps', 'ref_chosen_logps', 'ref_rejected_logps'
)  # fmt: skip

find_loss = functools.partial(lookup.find_loss, takes=TAKES)


def roles(*, score_fn=None, **_):
  """(trained, frozen) roles: the reward model, unless there is a score_fn."""
  return TRAINED, FROZEN if score_fn is None else ()


def init_extra(*, params, restart=True, **_):
  """The policies that a round goes back to."""
  copy = lambda: jax.tree.map(jnp.copy, params['policy'])
  names = ('sampler', 'ref') + (('initial',) if restart else ())
  return {name: copy() for name in names}


def check_kw(*, group=4, sft_steps=10, dpo_steps=10, loss='dpo', **_):
  """Raises for arguments that cannot be."""
  if group < 2 or min(sft_steps, dpo_steps) < 0 or not sft_steps + dpo_steps:
    raise ValueError(
      f'group is {group}, sft_steps {sft_steps}, dpo_steps {dpo_steps}: give a '
      'group of at least 2 and a round of at least 1 step.'
    )
  if 'exists' in lookup.arguments(find_loss(loss)):
    raise ValueError(
      f'The loss {loss!r} compares all pairs of a batch, and is not offered in '
      'rounds: take one of single pairs.'
    )


def check_schedule(schedule, total_steps, *, sft_steps=10, dpo_steps=10, **_):
  """Raises for a schedule that no part is long enough for."""
  parts = [steps for steps in (sft_steps, dpo_steps) if steps]
  if schedule in ('constant', 'rsqrt') or total_steps <= parts[0]:
    return
  lengths = ' and '.join(map(str, parts))
  raise ValueError(
    f'optimizer.schedule is {schedule!r}, over all {total_steps} steps, but '
    f'the optimiser begins anew in every part of {lengths} steps: take '
    "'constant' or 'rsqrt'."
  )


def make_step(models, tx, *, score_fn=None, group=4, sft_steps=10, dpo_steps=10,
              restart=True, nll_coef=0.2, loss='dpo', max_new_tokens=64,
              temperature=1.0, top_k=0, top_p=1.0, stop_ids=(), microbatches=1,
              ema_decay=0.0, state_sharding=None, join=train.separate,
              **loss_kw):  # fmt: skip
  """Makes `step(state, frozen, prompts, key) -> (state, metrics)`.

  Args:
    models: 'policy', and 'reward' unless there is a `score_fn`.
    tx: the optimiser.
    score_fn: (frozen, rows) -> (scores, parts), see `alignax.rewards`. What has
      no finite score is never the best or the worst; equal scores are no pair.
    group: G, responses to a prompt.
    sft_steps, dpo_steps: lengths of the two parts of a round.
    restart: whether SFT starts from where the run did, as for Llama 3, and not
      from the last round's policy.
    nll_coef: weight of the NLL of the best response in the DPO part.
    loss: name of a pair loss with a reference; or the dotted name of your own.
    max_new_tokens: of a response.
    temperature, top_k, top_p, stop_ids: of sampling; what is learned are plain
      log-probs, at a temperature of 1.
    microbatches, ema_decay, state_sharding, join: see `train.make_update`.
    **loss_kw: of the loss: `beta`, ...
  """
  check_kw(group=group, sft_steps=sft_steps, dpo_steps=dpo_steps, loss=loss)
  pair_loss, policy = find_loss(loss), models['policy']
  round_steps = sft_steps + dpo_steps
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

  @functools.partial(jax.jit, donate_argnums=0)
  def begin(state):
    """What changes hands where a round, or its second part, starts."""
    at = state.step % round_steps
    new_round, new_dpo = at == 0, at == sft_steps
    choose = lambda which, a, b: jax.tree.map(
      lambda a, b: jnp.where(which, a, b), a, b
    )
    current, extra = state.params['policy'], dict(state.extra)
    extra['sampler'] = choose(new_round, current, extra['sampler'])
    ema = state.ema
    if restart:
      current = choose(new_round, extra['initial'], current)
    if restart and ema is not None:  # It would go on from what is given up.
      restarted = choose(new_round, current, ema['policy'])
      ema = ema | {'policy': restarted}
    extra['ref'] = choose(new_dpo, current, extra['ref'])
    params = state.params | {'policy': current}
    opt_state = choose(new_round | new_dpo, tx.init(params), state.opt_state)
    return state.replace(
      params=params, opt_state=opt_state, ema=ema, extra=extra
    )

  def pair_up(rows, scores):
    members = jnp.stack(rollouts.best_and_worst(scores, group), axis=1)
    rows = {k: rows[k] for k in rollouts.TOKENS}
    batch, scores = rollouts.take_members((rows, scores), members, group)
    best, worst = scores[:, 0], scores[:, 1]
    scored = jnp.isfinite(best)
    batch['mask'] &= scored[:, None, None]
    batch['examples'] = scored & (best > worst)
    return batch, {
      'objective/best_score': rewards.mean_of(best, scored),
      'objective/pairs': jnp.mean(batch['examples']),
    }

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    token_logps = policy.logps(params['policy'], batch)
    sums = logps.sequence_logps(token_logps, batch['mask'])  # [P, 2]
    pair = lambda x: (x[:, 0], x[:, 1])
    in_dpo = batch['in_dpo']
    nll, metrics = losses.nll_loss(token_logps[:, 0])
    nll *= jnp.where(in_dpo, nll_coef, 1.0)[:, None]
    value, pair_metrics = pair_loss(
      *pair(sums), *pair(batch['ref_logps']), **loss_kw
    )
    return {'sft': (nll, metrics), 'pair': (in_dpo * value, pair_metrics)}

  def weigh(batch):
    return {
      'sft': weights.per_token(batch['mask'][:, 0]),
      'pair': weights.per_example(batch['examples']),
    }

  update = train.make_update(
    loss_fn,
    tx,
    microbatches=microbatches,
    ema_decay=ema_decay,
    state_sharding=state_sharding,
    join=join,
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def learn(state, frozen, rows, scores, key):
    in_dpo = state.step % round_steps >= sft_steps
    batch, metrics = pair_up(rows, scores)
    params, _ = join({'policy': state.extra['ref']}, frozen)
    ref_logps = policy.logps(params['policy'], batch)
    batch['ref_logps'] = logps.sequence_logps(ref_logps, batch['mask'])
    batch['in_dpo'] = jnp.full(batch['examples'].shape, in_dpo)
    state, found = update(state, frozen, batch, weigh(batch), key)
    return state, found | metrics | {'round/in_dpo': in_dpo.astype(float)}

  def step(state, frozen, prompts, key):
    sample_key, learn_key = jax.random.split(
      jax.random.fold_in(key, state.step)
    )
    state = begin(state)
    sampler = {'policy': state.extra['sampler']}
    rows, scores, seen = collect(sampler, frozen, prompts, sample_key)
    state, metrics = learn(state, frozen, rows, scores, learn_key)
    return state, metrics | seen

  return step
