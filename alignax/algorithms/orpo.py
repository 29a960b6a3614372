"""ORPO: imitate the chosen response and prefer it, in one stage.

  L = NLL of the chosen response - β log σ(log odds ratio)

There is no reference and, starting from a base model, no SFT before it. See
Hong et al., eq. 6 (https://arxiv.org/abs/2403.07691); batches are as for
`dpo`. The likelihood is a mean over all chosen tokens of the batch, prompts
left out.
"""

from alignax import losses, responses, train, weights

DATA = 'pairs'
TRAINED = ('policy',)
FROZEN = ()


def make_step(models, tx, *, beta=0.1, **step_kw):
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Args:
    models: 'policy'.
    tx: the optimiser.
    beta: weight of the odds ratio's term, the paper's λ.
    **step_kw: see `train.make_update`.
  """
  loss_fn = make_loss(models['policy'], beta=beta)
  return train.make_train_step(loss_fn, tx, weigh=weigh, **step_kw)


def make_eval(models, *, beta=0.1, microbatches=1, by_row=False,
              join=train.separate, **_):  # fmt: skip
  """Makes `evaluate(params, frozen, batch, key)`: loss, margin, accuracy."""
  loss_fn = make_loss(models['policy'], beta=beta)
  return train.make_eval(
    loss_fn, weigh=weigh, microbatches=microbatches, by_row=by_row, join=join
  )


def make_loss(policy, *, beta=0.1):
  """Makes the loss of every pair, [B, S], and of every chosen token, [B, T]."""

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    token_logps = policy.logps(params['policy'], batch)  # [B, 2, T]
    means = responses.mean_logps(token_logps, batch)  # [B, 2, S]
    nll, _ = losses.nll_loss(token_logps[:, 0])
    return {
      'pair': losses.orpo_loss(means[:, 0], means[:, 1], beta=beta),
      'nll': (nll, {'nll': nll}),
    }

  return loss_fn


def weigh(batch):
  """Every pair alike, and every chosen token alike."""
  return {
    'pair': weights.per_example(batch['examples']),
    'nll': weights.per_token(batch['mask'][:, 0]),
  }
