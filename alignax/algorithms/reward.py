"""Reward model: learn which of several responses people prefer.

A batch holds pairs, [B, 2, T] with the preferred response first, or rankings
of K responses, [B, K, T]. A row may hold several packed examples; then the
document of every candidate has the same segment id.
"""

from alignax import losses, train, weights
from alignax.numerics import choose

DATA = 'pairs'
OTHER_KINDS = ('rankings',)  # Where `config.data.kind` says so.
TRAINED = ('reward',)
FROZEN = ()


def check_kw(*, ranking='plackett_luce', **_):
  """Raises for arguments that cannot be."""
  choose('ranking', ranking, {'plackett_luce': 1, 'pairs': 1})


def make_step(models, tx, *, center=0.0, use_margins=False,
              ranking='plackett_luce', **step_kw):  # fmt: skip
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Args:
    models: 'reward'.
    tx: the optimiser.
    center: weight of (r⁺ + r⁻)², which holds scores around zero.
    use_margins: whether pairs carry how far apart their scores should be.
    ranking: of K responses, 'plackett_luce', or 'pairs' for the mean over all
      their pairs (InstructGPT).
    **step_kw: see `train.make_update`.
  """
  loss_fn = make_loss(
    models['reward'], center=center, use_margins=use_margins, ranking=ranking
  )
  return train.make_train_step(loss_fn, tx, weigh=weigh, **step_kw)


def make_eval(models, *, microbatches=1, by_row=False,
              ranking='plackett_luce', join=train.separate, **_):  # fmt: skip
  """Makes `evaluate(params, frozen, batch, key)`: loss and accuracy."""
  loss_fn = make_loss(models['reward'], ranking=ranking)
  return train.make_eval(
    loss_fn, weigh=weigh, microbatches=microbatches, by_row=by_row, join=join
  )


def make_loss(reward, *, center=0.0, use_margins=False,
              ranking='plackett_luce'):  # fmt: skip
  """Makes the loss of every example, [B, S]."""

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    scores = reward.scores(params['reward'], batch)  # [B, N, S]
    if 'ranks' in batch:
      # [B, K, S] -> [B, S, K]: the loss reads its candidates last.
      scores = scores.swapaxes(1, 2)
      return {
        'rank': losses.plackett_luce_loss(scores, batch['ranks'], kind=ranking)
      }
    loss = losses.bradley_terry_loss(
      scores[:, 0],
      scores[:, 1],
      margin=batch['margins'] if use_margins else 0.0,
      center=center,
    )
    return {'rank': loss}

  return loss_fn


def weigh(batch):
  """Every pair or ranking alike."""
  return {'rank': weights.per_example(batch['examples'])}
