"""KTO: learn from single responses that are called good or bad.

Batches are unpaired: tokens [B, T], and for each of the S documents of a row
whether it is `desirable`, [B, S]. The losses compare a response with a number
that is of the whole batch, so it is computed first, without a gradient:

  kto   z, the KL of the policy to its reference: the mean log-ratio of prompts
        with responses to other prompts (`batch['mismatched']`)
  bco   δ, the mean reward of all responses so far (in `state.extra`)

See Ethayarajh et al. (https://arxiv.org/abs/2402.01306) and Jung et al.
(https://arxiv.org/abs/2404.04656).
"""

import functools

import jax
import jax.numpy as jnp

from alignax import responses, train, weights
from alignax.losses import lookup

DATA = 'unpaired'
TRAINED = ('policy',)
FROZEN = ('ref',)

find_loss = functools.partial(
  lookup.find_loss, takes=('logps', 'ref_logps', 'desirable')
)


def batch_kw(*, loss='kto', **_):
  """Mismatched prompts and responses, if the loss has a reference point."""
  return {'mismatched': anchor_of(loss) == 'kl'}


def init_extra(*, loss='kto', **_):
  """The running mean of rewards and how many there were, for BCO."""
  if anchor_of(loss) != 'delta':
    return {}
  return {'delta': jnp.zeros(()), 'responses': jnp.zeros(())}


def make_step(models, tx, *, loss='kto', beta=0.1, microbatches=1,
              ema_decay=0.0, state_sharding=None, join=train.separate,
              **loss_kw):  # fmt: skip
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Args:
    models: 'policy'; the reference is the same model.
    tx: the optimiser.
    loss: 'kto', 'bco' or 'apo_zero_unpaired'; or the dotted name of one of your
      own, which has `kl` or `delta` as its fourth argument, or neither.
    beta: how strongly the policy is held to the reference.
    microbatches, ema_decay, state_sharding, join: see `train.make_update`.
    **loss_kw: of the loss: `desirable_weight` and `undesirable_weight`.
  """
  policy, anchor = models['policy'], anchor_of(loss)
  update = train.make_update(
    make_loss(policy, loss=loss, beta=beta, **loss_kw),
    tx,
    microbatches=microbatches,
    ema_decay=ema_decay,
    state_sharding=state_sharding,
    join=join,
  )
  anchored = make_anchored(policy, anchor, beta=beta, microbatches=microbatches)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, frozen, batch, key):
    both = join(state.params, frozen)
    batch, extra = anchored(*both, batch, state.extra)
    before = state.extra
    state, metrics = update(state, frozen, batch, weigh(batch), key)
    keep = lambda new, old: jnp.where(state.skipped == 0, new, old)
    state = state.replace(extra=jax.tree.map(keep, extra, before))
    if anchor == 'delta':
      metrics['rewards/delta'] = batch['anchor'][0]
    return state, metrics

  return step


def make_eval(models, *, loss='kto', beta=0.1, microbatches=1, by_row=False,
              ema_decay=0.0, join=train.separate, **loss_kw):  # fmt: skip
  """Makes `evaluate(params, frozen, batch, key)`; the whole held-out set is one
  batch, of which BCO's δ is the mean."""
  del ema_decay
  policy = models['policy']
  anchored = make_anchored(
    policy, anchor_of(loss), beta=beta, microbatches=microbatches
  )
  evaluate = train.make_eval(
    make_loss(policy, loss=loss, beta=beta, **loss_kw),
    weigh=weigh,
    microbatches=microbatches,
    by_row=by_row,
    join=join,
  )

  @jax.jit
  def evaluate_anchored(params, frozen, batch, key):
    batch, _ = anchored(*join(params, frozen), batch, init_extra(loss=loss))
    return evaluate(params, frozen, batch, key)

  return evaluate_anchored


def make_loss(policy, *, loss='kto', beta=0.1, **loss_kw):
  """Makes the loss of every response, [B, S]."""
  response_loss, anchor = find_loss(loss), anchor_of(loss)

  def loss_fn(params, frozen, batch, key):
    del key  # No dropout: it would part the policy from its reference.
    logps, ref_logps = both_logps(policy, params, frozen, batch)
    arrays = [logps, ref_logps, batch['desirable']]
    if anchor:
      arrays.append(jnp.broadcast_to(batch['anchor'][:, None], logps.shape))
    return {'response': response_loss(*arrays, beta=beta, **loss_kw)}

  return loss_fn


def weigh(batch):
  """Every response alike."""
  return {'response': weights.per_example(batch['examples'])}


def make_anchored(policy, anchor, *, beta, microbatches):
  """Makes (params, frozen, batch, extra) -> (batch, extra), of joined roles.

  The batch then has what its responses are compared with, `anchor` [B], one
  number for all of it; and no `mismatched` any more. As many rows as in a
  microbatch go through the model at a time.
  """

  def mean_log_ratio(params, frozen, rows):
    def totals(part):
      logps, ref_logps = both_logps(policy, params, frozen, part)
      exists = part['examples']
      total = jnp.sum(logps - ref_logps, where=exists)
      return total, jnp.sum(exists, dtype=jnp.float32)

    total, count = train.sum_over(totals, train.split(rows, microbatches))
    return total / jnp.maximum(count, 1), count

  def anchored(params, frozen, batch, extra):
    batch = dict(batch)
    mismatched = batch.pop('mismatched', None)
    if anchor == 'kl':
      if 'ref' not in frozen:
        raise ValueError(
          'data.precompute_ref: the reference point of the loss is of other '
          "pairs at every step, which needs frozen['ref']: set it to False."
        )
      value, _ = mean_log_ratio(params, frozen, mismatched)
      value = jnp.maximum(value, 0)  # A KL is never negative.
    elif anchor == 'delta':
      mean, count = mean_log_ratio(params, frozen, batch)
      seen = extra['responses'] + count
      share = count / jnp.maximum(seen, 1)
      value = extra['delta'] + share * (beta * mean - extra['delta'])
      extra = {'delta': value, 'responses': seen}
    else:
      return batch, extra
    batch['anchor'] = jnp.full(batch['examples'].shape[0], value)
    return batch, extra

  return anchored


def both_logps(policy, params, frozen, batch):
  """Log-probs of every response under policy and reference, both [B, S]."""
  ref_logps = batch.get('ref_logps')
  if ref_logps is None:
    ref_logps = responses.response_logps(policy, frozen['ref'], batch)
  return responses.response_logps(policy, params['policy'], batch), ref_logps


def reference_logps(policy, **_):
  """Makes a compiled (params, batch) -> `ref_logps` [B, S]; not for 'kto'."""
  return jax.jit(functools.partial(responses.response_logps, policy))


def anchor_of(loss):
  """'kl' or 'delta', what the loss compares a response with; else None."""
  arguments = lookup.arguments(find_loss(loss))
  return next((name for name in ('kl', 'delta') if name in arguments), None)
