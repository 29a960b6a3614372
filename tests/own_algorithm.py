"""An algorithm from outside of the library: SFT whose data goes bad.

A run uses it by its dotted name. From update `poison_from` on its loss is not a
number; with `poison_from=0` it is SFT as it is.
"""

import numpy as np

from alignax import train
from alignax.algorithms import sft

DATA = 'text'
TRAINED = ('policy',)
FROZEN = ()


def make_step(models, tx, *, poison_from=0, **step_kw):
  inner = sft.make_loss(models['policy'])

  def loss_fn(params, frozen, batch, key):
    ((loss, metrics),) = inner(params, frozen, batch, key).values()
    return {'nll': (loss * batch['factor'][:, None], metrics)}

  step = train.make_train_step(loss_fn, tx, weigh=sft.weigh('token'), **step_kw)

  def poisoned(state, frozen, batch, key):
    bad = 0 < poison_from <= int(state.step) + 1
    rows = batch['inputs'].shape[0]
    factor = np.full(rows, np.nan if bad else 1.0, np.float32)
    return step(state, frozen, batch | {'factor': factor}, key)

  return poisoned


def spread(row, response):
  """A checker from outside of the library that finds no two responses alike."""
  del row
  return sum(ord(c) * (i + 1) for i, c in enumerate(response)) % 97 / 97
