"""Distillation: bring a student's distribution to that of a teacher.

At every learned token the two distributions over the whole vocabulary are
compared: by the forward KL (the student covers what the teacher says), the
reverse KL (it keeps to what the teacher would say) or what lies between.
Neither model's [B, T, V] is ever held, see `alignax.fused_divergence`.

With `on_policy` it is GKD: in that share of the steps the student's own
responses replace those of the batch, so that it learns where it errs. See
Agarwal et al., algorithm 1 (https://arxiv.org/abs/2306.13649).
"""

import functools

import jax
import jax.numpy as jnp

from alignax import sampling, train, weights
from alignax.fused_divergence import fused_divergence
from alignax.losses import lookup

DATA = 'text'
TRAINED = ('policy',)
FROZEN = ('teacher',)

find_loss = functools.partial(
  lookup.find_loss, takes=('student_logits', 'teacher_logits')
)


def batch_kw(*, on_policy=0.0, **_):
  """A response of one's own needs a row of its own."""
  return {'packing': False} if on_policy else {}


def check_kw(*, on_policy=0.0, sampling_temperature=1.0, top_k=0, **_):
  """Raises for arguments that cannot be."""
  if not 0 <= on_policy <= 1:
    raise ValueError(f'on_policy is {on_policy}; it is a share, from 0 to 1.')
  if sampling_temperature < 0:
    raise ValueError(
      f'sampling_temperature is {sampling_temperature}; it is at least 0.'
    )
  if top_k < 0:
    raise ValueError(f'top_k is {top_k}; it is 0 (all tokens) or positive.')


def make_step(models, tx, *, loss='forward_kl', top_k=0, on_policy=0.0,
              max_new_tokens=64, sampling_temperature=1.0, stop_ids=(),
              microbatches=1, ema_decay=0.0, state_sharding=None,
              join=train.separate, **loss_kw):  # fmt: skip
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Args:
    models: 'policy', the student, and 'teacher', of the same tokenizer.
    tx: the optimiser.
    loss: 'forward_kl', 'reverse_kl' or 'generalized_jsd'; or the dotted name of
      one of your own on logits.
    top_k: if above 0, only the teacher's k likeliest tokens are told apart.
    on_policy: λ, share of the steps that are on the student's own responses;
      prompts are then what stands before the first learned token of a row.
    max_new_tokens, sampling_temperature, stop_ids: of these responses. No
      gradient flows through them.
    microbatches, ema_decay, state_sharding, join: see `train.make_update`.
    **loss_kw: of the loss: `temperature`, and `beta` of the JSD.
  """
  check_kw(
    on_policy=on_policy, sampling_temperature=sampling_temperature, top_k=top_k
  )
  update = train.make_train_step(
    make_loss(models, loss=loss, top_k=top_k, **loss_kw),
    tx,
    weigh=weigh,
    microbatches=microbatches,
    ema_decay=ema_decay,
    state_sharding=state_sharding,
    join=join,
  )
  if not on_policy:
    return update
  draw = sampling.make_sampling(
    temperature=sampling_temperature, stop_ids=stop_ids
  )

  @jax.jit
  def rollout(params, frozen, batch, key):
    params, _ = join(params, frozen)
    rows = sampling.sample(
      models['policy'],
      params['policy'],
      prompts_of(batch),
      key,
      draw,
      max_new_tokens=max_new_tokens,
    )
    return {k: rows[k] for k in TOKENS}

  def step(state, frozen, batch, key):
    choice_key, rollout_key, update_key = jax.random.split(
      jax.random.fold_in(key, state.step), 3
    )
    # In [0, 1), so that a share of 1 is every step; alike on all hosts.
    own = bool(jax.random.uniform(choice_key) < on_policy)
    if own:
      batch = rollout(state.params, frozen, batch, rollout_key)
    state, metrics = update(state, frozen, batch, update_key)
    metrics['tokens'] = sampling.num_tokens(batch)
    return state, metrics | {'distill/on_policy': float(own)}

  return step


TOKENS = ('inputs', 'targets', 'segments', 'positions', 'mask')


def make_eval(models, *, loss='forward_kl', top_k=0, on_policy=0.0,
              max_new_tokens=64, sampling_temperature=1.0, stop_ids=(),
              microbatches=1, by_row=False, ema_decay=0.0, join=train.separate,
              **loss_kw):  # fmt: skip
  """Makes `evaluate(params, frozen, batch, key)`, on the held-out responses."""
  del on_policy, max_new_tokens, sampling_temperature, stop_ids, ema_decay
  return train.make_eval(
    make_loss(models, loss=loss, top_k=top_k, **loss_kw),
    weigh=weigh,
    microbatches=microbatches,
    by_row=by_row,
    join=join,
  )


def make_loss(models, *, loss='forward_kl', top_k=0, **loss_kw):
  """Makes the loss of every token, [B, T]."""
  student, teacher = models['policy'], models['teacher']
  if top_k:
    loss_kw['top_k'] = top_k
  divergence = functools.partial(find_loss(loss), **loss_kw)

  def loss_fn(params, frozen, batch, key):
    del key
    params, frozen = params['policy'], frozen['teacher']
    taught = jax.lax.stop_gradient(teacher.hidden(frozen, batch))
    found = fused_divergence(
      divergence,
      *student.head_factors(params, student.hidden(params, batch)),
      *teacher.head_factors(frozen, taught),
      batch['mask'],
      softcap=student.config.final_softcap,
      teacher_softcap=teacher.config.final_softcap,
    )
    return {'divergence': found}

  return loss_fn


def weigh(batch):
  """Every learned token alike."""
  return {'divergence': weights.per_token(batch['mask'])}


def prompts_of(batch):
  """What stands before the first learned token, padded on the left. [B, T]."""
  mask, width = batch['mask'], batch['mask'].shape[-1]
  # A target is one position ahead: the token at the first of them is still of
  # the prompt. Rows from which nothing is learned have none.
  lengths = jnp.where(mask.any(axis=-1), jnp.argmax(mask, axis=-1) + 1, 0)
  steps = jnp.arange(width) - (width - lengths[:, None])
  exists, steps = steps >= 0, jnp.maximum(steps, 0)
  inputs = jnp.take_along_axis(batch['inputs'], steps, axis=-1)
  return {
    'inputs': jnp.where(exists, inputs, 0),
    'segments': exists.astype(jnp.int32),
    'positions': steps.astype(jnp.int32),
  }
