"""DPO: learn from preference pairs, with no sampling and no reward model.

A batch holds pairs: every array is [B, 2, T], with the preferred response in
[:, 0] and the other in [:, 1]. So the two stay on one device, and one forward
pass serves both. A row may hold S packed pairs, told apart by segment.
"""

import importlib

import jax

from alignax import logps, losses, train, weights

DATA = 'pairs'
TRAINED = ('policy',)
FROZEN = ('ref',)


def make_step(models, tx, *, loss='dpo', average_logps=False, microbatches=1,
              ema_decay=0.0, state_sharding=None, join=train.separate,
              **loss_kw):  # fmt: skip
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Reference log-probs come from `batch['ref_logps']` [B, 2, S] where they were
  computed beforehand (see `reference_logps`), else from `frozen['ref']`.

  Args:
    models: 'policy'; the reference is the same model.
    tx: the optimiser.
    loss: name of a pair loss with a reference: 'dpo', 'ipo', 'hinge',
      'robust_dpo', ...; or the dotted name of one of your own.
    average_logps: whether the loss sees log-probs per token instead of sums.
    microbatches, ema_decay, state_sharding, join: see `train.make_update`.
    **loss_kw: of the loss: `beta`, `label_smoothing`, ...
  """
  loss_fn = make_loss(
    models['policy'], loss=loss, average_logps=average_logps, **loss_kw
  )
  return train.make_train_step(
    loss_fn,
    tx,
    weigh=weigh,
    microbatches=microbatches,
    ema_decay=ema_decay,
    state_sharding=state_sharding,
    join=join,
  )


def make_eval(models, *, microbatches=1, by_row=False, ema_decay=0.0,
              join=train.separate, **loss_kw):  # fmt: skip
  """Makes `evaluate(params, frozen, batch, key)`: loss, margin, accuracy."""
  del ema_decay
  loss_fn = make_loss(models['policy'], **loss_kw)
  return train.make_eval(
    loss_fn, weigh=weigh, microbatches=microbatches, by_row=by_row, join=join
  )


def make_loss(policy, *, loss='dpo', average_logps=False, **loss_kw):
  """Makes the loss of every pair, [B, S]."""
  pair_loss = find_loss(loss)

  def loss_fn(params, frozen, batch, key):
    del key  # No dropout: it would part the policy from its reference.
    policy_logps = response_logps(policy, params['policy'], batch)  # [B, 2, S]
    ref_logps = batch.get('ref_logps')
    if ref_logps is None:
      ref_logps = response_logps(policy, frozen['ref'], batch)
    if average_logps:
      lengths = response_lengths(batch)
      policy_logps, ref_logps = policy_logps / lengths, ref_logps / lengths
    pair = lambda x: (x[:, 0], x[:, 1])
    loss, metrics = pair_loss(*pair(policy_logps), *pair(ref_logps), **loss_kw)
    metrics |= dict(zip(('logps/chosen', 'logps/rejected'), pair(policy_logps)))
    return {'pair': (loss, metrics)}

  return loss_fn


def weigh(batch):
  """Every pair alike."""
  return {'pair': weights.per_example(batch['examples'])}


def response_logps(policy, params, batch):
  """Log-prob of every packed response. Tokens [B, N, T] -> [B, N, S]."""
  num = batch['examples'].shape[-1]
  token_logps = policy.logps(params, batch)
  return logps.sequence_logps(
    token_logps, batch['mask'], batch['segments'], num
  )


def response_lengths(batch):
  """Tokens of every packed response, at least 1. [B, N, T] -> [B, N, S]."""
  num = batch['examples'].shape[-1]
  lengths = logps.sequence_lengths(batch['mask'], batch['segments'], num)
  return jax.numpy.maximum(lengths, 1)


def reference_logps(policy):
  """Makes a compiled (params, batch) -> `ref_logps` [B, 2, S].

  Computed once for the whole data set, the reference need not stay in memory.
  """
  return jax.jit(lambda params, batch: response_logps(policy, params, batch))


def find_loss(name):
  """The function that a config's loss name means."""
  if '.' in name:
    module, function = name.rsplit('.', 1)
    return getattr(importlib.import_module(module), function)
  known = [n for n in dir(losses) if n.endswith('_loss')]
  if f'{name}_loss' not in known:
    short = ', '.join(n.removesuffix('_loss') for n in known)
    raise ValueError(f'There is no loss {name!r}; there are {short}.')
  return getattr(losses, f'{name}_loss')
