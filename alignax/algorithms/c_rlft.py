"""C-RLFT: imitate data of mixed quality, each token by how good its source is.

  L = -Σ_t w_t log p(y_t)   with   w ∝ exp(r_c / β)

Every row has a class c with a coarse reward r_c, and, in its messages, a prompt
that tells its class (a system turn, say): the model learns to tell the classes
apart, and is used with the prompt of the best one.

See Wang et al., section 3 (https://arxiv.org/abs/2309.11235).
"""

from alignax import losses, train, weights

DATA = 'text'
TRAINED = ('policy',)
FROZEN = ()
REWARDS = (1.0, 0.1)  # Of experts and of others, as in the paper.


def batch_kw(*, rewards=REWARDS, **_):
  """Batches say the class of every token."""
  return {'classes': len(rewards)}


def make_step(models, tx, *, rewards=REWARDS, beta=1.0, **step_kw):
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Args:
    models: 'policy'.
    tx: the optimiser.
    rewards: of every class, by its number in the field `class` of the rows.
    beta: the smaller, the less the worse classes count.
    **step_kw: see `train.make_update`.
  """
  return train.make_train_step(
    make_loss(models['policy']), tx, weigh=make_weigh(rewards, beta), **step_kw
  )


def make_eval(models, *, rewards=REWARDS, beta=1.0, microbatches=1,
              by_row=False, join=train.separate, **_):  # fmt: skip
  """Makes `evaluate(params, frozen, batch, key)`: the weighted loss."""
  return train.make_eval(
    make_loss(models['policy']),
    weigh=make_weigh(rewards, beta),
    microbatches=microbatches,
    by_row=by_row,
    join=join,
  )


def make_loss(policy):
  """Makes the loss of every token, [B, T]."""

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    return {'nll': losses.nll_loss(policy.logps(params['policy'], batch))}

  return loss_fn


def make_weigh(rewards, beta):
  """Tokens by the reward of their class."""
  return lambda batch: {
    'nll': weights.c_rlft_weights(
      batch['mask'], batch['classes'], rewards=rewards, beta=beta
    )
  }
