"""Online DPO: preferences between responses that the policy itself wrote.

  prompts  --sample-->   two or more responses to each
           --score-->    rewards, or a judge
           --rank-->     the best and the worst are a pair
           --improve-->  a loss of pairs

Who samples, and what the policy is held to, makes its kinds:

  round_steps=0  on-policy: samples of the policy as it is, and a fixed
                 reference. Guo et al. (https://arxiv.org/abs/2402.04792)
  round_steps=N  iterative: for N steps, sampler and reference are the policy as
                 it was when the round began. Xu et al., section 3
                 (https://arxiv.org/abs/2312.16682); Yuan et al., section 2
                 (https://arxiv.org/abs/2401.10020)
  loss='xpo'     every pair is a response of the policy and one of the
                 reference, from which the policy is to move away. Xie et al.,
                 algorithm 1 (https://arxiv.org/abs/2405.21046)
"""

import functools

import jax
import jax.numpy as jnp

from alignax import logps, rewards, rollouts, sampling, train, weights
from alignax.losses import lookup

DATA = 'prompts'
TRAINED = ('policy',)
FROZEN = ('ref', 'reward')
TAKES = (
  'chosen_logps', 'rejected_logps', 'ref_chosen_logps', 'ref_rejected_logps'
)  # fmt: skip
XPO_TAKES = ('own_logps', 'other_logps', 'ref_own_logps', 'ref_other_logps')


def find_loss(name):
  """The loss that a config names."""
  return lookup.find_loss(name, takes=XPO_TAKES if name == 'xpo' else TAKES)


def roles(*, round_steps=0, score_fn=None, **_):
  """(trained, frozen) roles: in rounds, the state holds the reference."""
  wanted = {'ref': not round_steps, 'reward': score_fn is None}
  return TRAINED, tuple(role for role in FROZEN if wanted[role])


def check_kw(*, loss='dpo', group=2, round_steps=0, microbatches=1, **_):
  """Raises for arguments that cannot be."""
  if loss == 'xpo' and (group != 2 or round_steps):
    raise ValueError(
      "loss='xpo' compares one response of the policy with one of a fixed "
      f'reference: group is {group} and round_steps {round_steps}; they must '
      'be 2 and 0.'
    )
  if group < 2:
    raise ValueError(f'group is {group}; a pair needs at least 2.')
  if round_steps < 0:
    raise ValueError(f'round_steps is {round_steps}; give 0 or more.')
  if microbatches > 1 and 'exists' in lookup.arguments(find_loss(loss)):
    raise ValueError(
      f'microbatches is {microbatches}, but the loss {loss!r} compares all '
      'pairs of a batch: set it to 1.'
    )


def init_extra(*, params, round_steps=0, **_):
  """In rounds, the policy as it was when the round began."""
  if not round_steps:
    return {}
  return {'start': jax.tree.map(jnp.copy, params['policy'])}


def make_step(models, tx, *, score_fn=None, group=2, loss='dpo', round_steps=0,
              max_new_tokens=64, temperature=1.0, top_k=0, top_p=1.0,
              stop_ids=(), microbatches=1, ema_decay=0.0, state_sharding=None,
              join=train.separate, **loss_kw):  # fmt: skip
  """Makes `step(state, frozen, prompts, key) -> (state, metrics)`.

  Args:
    models: 'policy' (the reference is the same model), and 'reward' unless
      there is a `score_fn`.
    tx: the optimiser.
    score_fn: (frozen, rows) -> (scores, parts), see `alignax.rewards`; a judge
      too (`rewards.judge_scores`). Equal scores, or none, are no pair.
    group: G, responses to a prompt; for 'xpo' 2, one of the policy and one of
      the reference.
    loss: name of a pair loss with a reference, or 'xpo'; or the dotted name of
      one of your own.
    round_steps: N, length of a round; 0: on-policy, with a fixed reference.
    max_new_tokens: of a response.
    temperature, top_k, top_p, stop_ids: of sampling. Log-probs are at the
      temperature everywhere.
    microbatches, ema_decay, state_sharding, join: see `train.make_update`.
    **loss_kw: of the loss: `beta`, ...
  """
  check_kw(
    loss=loss, group=group, round_steps=round_steps, microbatches=microbatches
  )
  policy, is_xpo = models['policy'], loss == 'xpo'
  draw = sampling.make_sampling(
    temperature=temperature, top_k=top_k, top_p=top_p, stop_ids=stop_ids
  )
  read = functools.partial(policy.logps, temperature=draw.logp_temperature)
  make_rollout = functools.partial(
    rollouts.make_rollout,
    policy,
    draw,
    max_new_tokens=max_new_tokens,
    join=join,
  )
  if is_xpo:
    of_ref = make_rollout(whose=lambda params, frozen: frozen['ref'])
    rollout = rollouts.against(make_rollout(), of_ref)
  else:
    rollout = make_rollout(group=group)
  score_fn = score_fn or rewards.reward_model_scores(
    models['reward'], join=join
  )
  collect = rollouts.make_collect(
    rollout, score_fn, group=group, own=1 if is_xpo else None
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def begin(state):
    """At the start of a round, takes down the policy."""
    is_new = state.step % round_steps == 0
    start = jax.tree.map(
      lambda new, old: jnp.where(is_new, new, old),
      state.params['policy'],
      state.extra['start'],
    )
    return state.replace(extra={'start': start})

  def reference(state, frozen):
    if round_steps:
      return join({'policy': state.extra['start']}, frozen)[0]['policy']
    return join(state.params, frozen)[1]['ref']

  def pair_up(rows, scores):
    if is_xpo:  # The policy's own, and the reference's.
      members = jnp.tile(jnp.arange(2), (len(scores) // 2, 1))
    else:
      members = jnp.stack(rollouts.best_and_worst(scores, group), axis=1)
    rows = {k: rows[k] for k in rollouts.TOKENS}
    batch, scores = rollouts.take_members((rows, scores), members, group)
    first, second = scores[:, 0], scores[:, 1]
    both = jnp.isfinite(first) & jnp.isfinite(second)
    batch['first_wins'] = first > second
    batch['examples'] = both & (first != second)
    margin = rewards.mean_of(jnp.abs(first - second), both)
    return batch, {
      'objective/pairs': jnp.mean(batch['examples']),
      'objective/margin': margin,
    }

  update = train.make_update(
    make_loss(read, loss, **loss_kw),
    tx,
    microbatches=microbatches,
    ema_decay=ema_decay,
    state_sharding=state_sharding,
    join=join,
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def learn(state, frozen, rows, scores, key):
    batch, metrics = pair_up(rows, scores)
    ref_logps = read(reference(state, frozen), batch)
    batch['ref_logps'] = logps.sequence_logps(ref_logps, batch['mask'])
    share = {'pair': weights.per_example(batch['examples'])}
    state, found = update(state, frozen, batch, share, key)
    return state, found | metrics

  def step(state, frozen, prompts, key):
    sample_key, learn_key = jax.random.split(
      jax.random.fold_in(key, state.step)
    )
    sampler = state.params
    if round_steps:
      state = begin(state)
      sampler = {'policy': state.extra['start']}
    rows, scores, seen = collect(sampler, frozen, prompts, sample_key)
    state, metrics = learn(state, frozen, rows, scores, learn_key)
    return state, metrics | seen

  return step


def make_loss(read, loss, **loss_kw):
  """Makes the loss of every pair, [P], of tokens [P, 2, T]."""
  pair_loss = find_loss(loss)
  of_batch = {'own_wins': 'first_wins', 'exists': 'examples'}
  wanted = [k for k in of_batch if k in lookup.arguments(pair_loss)]

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    token_logps = read(params['policy'], batch)
    sums = logps.sequence_logps(token_logps, batch['mask'])  # [P, 2]
    pair = lambda x: (x[:, 0], x[:, 1])
    more = {k: batch[of_batch[k]] for k in wanted}
    return {
      'pair': pair_loss(
        *pair(sums), *pair(batch['ref_logps']), **more, **loss_kw
      )
    }

  return loss_fn
