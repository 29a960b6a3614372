"""TPO: imitate the best of three responses, prefer the second to the worst.

  L = -log σ(β (s⁺ - s⁻) - γ) + c NLL of the gold response

Batches are rankings, [B, K, T]: the best candidate is the gold response, the
best of the others the chosen one, the worst the rejected one. Rankings with no
third candidate, or with a tie of those two, only add to the likelihood.

See Saeidi et al. (https://arxiv.org/abs/2405.16681).
"""

import jax.numpy as jnp

from alignax import losses, responses, train, weights

DATA = 'rankings'
TRAINED = ('policy',)
FROZEN = ()


def make_step(models, tx, *, beta=2.0, gamma=0.5, average_logps=True,
              nll_coef=1.0, **step_kw):  # fmt: skip
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Args:
    models: 'policy'.
    tx: the optimiser.
    beta, gamma: see `alignax.tpo_loss`.
    average_logps: whether the margin is of log-probs per token (TPO-L) or of
      sums (TPO, with γ = 0).
    nll_coef: c, weight of the likelihood, a mean over all gold tokens of the
      batch.
    **step_kw: see `train.make_update`.
  """
  loss_fn = make_loss(
    models['policy'],
    average_logps=average_logps,
    nll_coef=nll_coef,
    beta=beta,
    gamma=gamma,
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


def make_loss(policy, *, average_logps=True, nll_coef=1.0, **loss_kw):
  """Makes the loss of every ranking, [B, S], and of every token, [B, K, T]."""
  read = responses.mean_logps if average_logps else responses.sum_responses

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    token_logps = policy.logps(params['policy'], batch)  # [B, K, T]
    logps = read(token_logps, batch).swapaxes(1, 2)  # [B, S, K]
    _, chosen, rejected = gold_chosen_rejected(batch['ranks'])
    pick = lambda at: jnp.take_along_axis(logps, at[..., None], -1)[..., 0]
    nll, _ = losses.nll_loss(token_logps)
    return {
      'pair': losses.tpo_loss(pick(chosen), pick(rejected), **loss_kw),
      'nll': (nll_coef * nll, {'nll': nll}),
    }

  return loss_fn


def weigh(batch):
  """Every ranking alike that says anything, and every gold token alike."""
  ranks = batch['ranks']
  gold, chosen, rejected = gold_chosen_rejected(ranks)
  rank = lambda at: jnp.take_along_axis(ranks, at[..., None], -1)[..., 0]
  decided = (jnp.sum(ranks > 0, axis=-1) > 2) & (rank(chosen) < rank(rejected))
  segments = batch['segments']
  # The gold candidate of every token's document.
  gold = jnp.broadcast_to(gold[:, None], (*segments.shape[:2], gold.shape[-1]))
  gold = jnp.take_along_axis(gold, jnp.maximum(segments - 1, 0), axis=-1)
  is_gold = gold == jnp.arange(segments.shape[1])[:, None]
  return {
    'pair': weights.per_example(batch['examples'] & decided),
    'nll': weights.per_token(batch['mask'] & is_gold),
  }


def gold_chosen_rejected(ranks):
  """Which candidates are which, from ranks [..., K] (0: none). Each [...]."""
  worst = jnp.argmax(ranks, axis=-1)
  last = jnp.iinfo(ranks.dtype).max
  order = jnp.argsort(jnp.where(ranks > 0, ranks, last), axis=-1, stable=True)
  return order[..., 0], order[..., 1], worst
