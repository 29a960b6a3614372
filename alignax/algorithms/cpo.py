"""CPO: DPO with a uniform reference, and the likelihood of what was chosen.

  L = -log σ(β (s⁺ - s⁻)) + c NLL of the chosen response

See Xu et al., eq. 7 (https://arxiv.org/abs/2401.08417). The second term stands
for the reference: without it (c = 0) both responses may become unlikely. It is
a mean over all chosen tokens of the batch. Batches are as for `dpo`.
"""

import functools

import jax
import numpy as np

from alignax import losses, responses, train, weights

DATA = 'pairs'
TRAINED = ('policy',)
FROZEN = ()


def check_kw(*, kind='sigmoid', label_smoothing=0.0, **_):
  """Raises for arguments that cannot be: the loss itself knows."""
  kw = dict(kind=kind, label_smoothing=label_smoothing)
  jax.eval_shape(functools.partial(losses.cpo_loss, **kw), *np.zeros((2, 1)))


def make_step(models, tx, *, beta=0.1, label_smoothing=0.0, kind='sigmoid',
              nll_coef=1.0, **step_kw):  # fmt: skip
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Args:
    models: 'policy'.
    tx: the optimiser.
    beta, label_smoothing, kind: see `alignax.cpo_loss`.
    nll_coef: c, weight of the likelihood.
    **step_kw: see `train.make_update`.
  """
  loss_fn = make_loss(
    models['policy'],
    beta=beta,
    label_smoothing=label_smoothing,
    kind=kind,
    nll_coef=nll_coef,
  )
  return train.make_train_step(loss_fn, tx, weigh=weigh, **step_kw)


def make_eval(models, *, microbatches=1, by_row=False, ema_decay=0.0,
              join=train.separate, **loss_kw):  # fmt: skip
  """Makes `evaluate(params, frozen, batch, key)`: loss, margin, accuracy."""
  del ema_decay
  loss_fn = make_loss(models['policy'], **loss_kw)
  return train.make_eval(
    loss_fn, weigh=weigh, microbatches=microbatches, by_row=by_row, join=join
  )


def make_loss(policy, *, nll_coef=1.0, **loss_kw):
  """Makes the loss of every pair, [B, S], and of every chosen token, [B, T]."""

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    token_logps = policy.logps(params['policy'], batch)  # [B, 2, T]
    sums = responses.sum_responses(token_logps, batch)  # [B, 2, S]
    nll, _ = losses.nll_loss(token_logps[:, 0])
    return {
      'pair': losses.cpo_loss(sums[:, 0], sums[:, 1], **loss_kw),
      'nll': (nll_coef * nll, {'nll': nll}),
    }

  return loss_fn


def weigh(batch):
  """Every pair alike, and every chosen token alike."""
  return {
    'pair': weights.per_example(batch['examples']),
    'nll': weights.per_token(batch['mask'][:, 0]),
  }
