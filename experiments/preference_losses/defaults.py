"""The two losses that need settings of their own, with those of all the others.

  alignax sweep --sweep=experiments/preference_losses/defaults.py \
      --workdir=runs/experiments --jobs=2

They leave no model to compare, so they are no part of `sweep.py`.
"""

from alignax import sweeps
from experiments import common
from experiments.preference_losses.sweep import OWN, SEEDS


def get_sweep():
  return sweeps.seeds([common.pairs(loss) for loss in OWN], SEEDS)
