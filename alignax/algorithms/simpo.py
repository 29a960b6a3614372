"""SimPO: DPO on log-probs per token, with a margin and without a reference.

  L = -log σ(β (s̄⁺ - s̄⁻) - γ) + c NLL of the chosen response

c is 0 in SimPO (Meng et al., eq. 6, https://arxiv.org/abs/2405.14734); a
positive one makes it CPO-SimPO (Xu et al., https://arxiv.org/abs/2401.08417,
for the second term). Batches are as for `dpo`.
"""

import functools

from alignax import losses, responses, train, weights
from alignax.losses import lookup

DATA = 'pairs'
TRAINED = ('policy',)
FROZEN = ()

find_loss = functools.partial(
  lookup.find_loss, takes=('chosen_mean_logps', 'rejected_mean_logps')
)


def make_step(models, tx, *, loss='simpo', nll_coef=0.0, microbatches=1,
              ema_decay=0.0, state_sharding=None, join=train.separate,
              **loss_kw):  # fmt: skip
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Args:
    models: 'policy'.
    tx: the optimiser.
    loss: 'simpo', 'alphapo'; or the dotted name of one of your own on mean
      log-probs.
    nll_coef: weight of the negative log-likelihood of the chosen response, a
      mean over all chosen tokens of the batch.
    microbatches, ema_decay, state_sharding, join: see `train.make_update`.
    **loss_kw: of the loss: `beta`, `gamma`, ...
  """
  return train.make_train_step(
    make_loss(models['policy'], loss=loss, nll_coef=nll_coef, **loss_kw),
    tx,
    weigh=make_weigh(nll_coef),
    microbatches=microbatches,
    ema_decay=ema_decay,
    state_sharding=state_sharding,
    join=join,
  )


def make_eval(models, *, nll_coef=0.0, microbatches=1, by_row=False,
              ema_decay=0.0, join=train.separate, **loss_kw):  # fmt: skip
  """Makes `evaluate(params, frozen, batch, key)`: loss, margin, accuracy."""
  del ema_decay
  return train.make_eval(
    make_loss(models['policy'], nll_coef=nll_coef, **loss_kw),
    weigh=make_weigh(nll_coef),
    microbatches=microbatches,
    by_row=by_row,
    join=join,
  )


def make_loss(policy, *, loss='simpo', nll_coef=0.0, **loss_kw):
  """Makes the loss of every pair, [B, S], and of every chosen token, [B, T]."""
  pair_loss = find_loss(loss)

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    token_logps = policy.logps(params['policy'], batch)  # [B, 2, T]
    means = responses.mean_logps(token_logps, batch)  # [B, 2, S]
    value, metrics = pair_loss(means[:, 0], means[:, 1], **loss_kw)
    metrics |= {
      'logps/chosen_mean': means[:, 0], 'logps/rejected_mean': means[:, 1]
    }  # fmt: skip
    terms = {'pair': (value, metrics)}
    if nll_coef:
      nll, _ = losses.nll_loss(token_logps[:, 0])
      terms['nll'] = (nll_coef * nll, {'nll': nll})
    return terms

  return loss_fn


def make_weigh(nll_coef=0.0):
  """Every pair alike, and in the likelihood every chosen token alike."""

  def weigh(batch):
    shares = {'pair': weights.per_example(batch['examples'])}
    if nll_coef:
      shares['nll'] = weights.per_token(batch['mask'][:, 0])
    return shares

  return weigh
