"""SFT: imitate demonstrations, on the assistant's tokens only.

With every token in the mask it is pretraining: the mask is the data's.
"""

import functools

import jax
import jax.numpy as jnp

from alignax import losses, train, weights

DATA = 'text'
TRAINED = ('policy',)
FROZEN = ()


def check_kw(*, average='token', **_):
  """Raises for arguments that cannot be."""
  weigh(average)


def make_step(models, tx, *, neftune=0.0, label_smoothing=0.0, z_loss=0.0,
              average='token', **step_kw):  # fmt: skip
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Args:
    models: 'policy'.
    tx: the optimiser.
    neftune: α, scale of the noise on the embeddings (5 is usual), 0 for none.
    label_smoothing: probability spread evenly over the vocabulary.
    z_loss: weight of (log Z)², which holds logits near zero.
    average: 'token' counts every token alike, 'sequence' every conversation.
    **step_kw: see `train.make_update`.
  """
  loss_fn = make_loss(
    models['policy'],
    neftune=neftune,
    label_smoothing=label_smoothing,
    z_loss=z_loss,
  )
  return train.make_train_step(loss_fn, tx, weigh=weigh(average), **step_kw)


def make_eval(models, *, average='token', microbatches=1, by_row=False,
              join=train.separate, **_):  # fmt: skip
  """Makes `evaluate(params, frozen, batch, key)`: the plain loss, no noise."""
  loss_fn = make_loss(models['policy'])
  return train.make_eval(
    loss_fn,
    weigh=weigh(average),
    microbatches=microbatches,
    by_row=by_row,
    join=join,
  )


def make_loss(policy, *, neftune=0.0, label_smoothing=0.0, z_loss=0.0):
  """Makes the loss of every token, [B, T]."""

  def loss_fn(params, frozen, batch, key):
    del frozen
    stats = policy.head_stats(
      params['policy'],
      batch,
      noise=neftune_noise(policy, batch, key, neftune) if neftune else None,
      mean_logps=label_smoothing > 0,
    )
    loss, metrics = losses.nll_loss(
      stats.logps,
      mean_logps=stats.mean_logps,
      logz=stats.logz,
      label_smoothing=label_smoothing,
      z_loss=z_loss,
    )
    return {'nll': (loss, metrics)}

  return loss_fn


def weigh(average):
  """How tokens are averaged: every token, or every conversation, alike."""
  if average == 'token':
    return lambda batch: {'nll': weights.per_token(batch['mask'])}
  if average == 'sequence':
    return lambda batch: {
      'nll': weights.per_sequence(batch['mask'], batch['segments'])
    }
  raise ValueError(f"average is {average!r}; it is 'token' or 'sequence'.")


def neftune_noise(policy, batch, key, alpha):
  """Uniform noise of scale α / √(n D) on the embeddings. -> [B, T, D].

  n counts the tokens of a row that are not padding. It comes after Gemma's
  embedding factor, so it is scaled by that too, as the embeddings are.

  See Jain et al., algorithm 1 (https://arxiv.org/abs/2310.05914).
  """
  config = policy.config
  tokens = jnp.sum(batch['segments'] > 0, axis=-1, keepdims=True)[..., None]
  scale = alpha * jax.lax.rsqrt(jnp.maximum(tokens, 1) * config.width * 1.0)
  shape = (*batch['inputs'].shape, config.width)
  draw = functools.partial(jax.random.uniform, minval=-1.0, maxval=1.0)
  return config.embed_scale * scale * draw(key, shape)
