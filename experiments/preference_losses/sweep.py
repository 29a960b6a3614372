"""Pair losses and PPO at equal KL: who gains most for the distance gone?

  alignax sweep --sweep=experiments/preference_losses/sweep.py \
      --workdir=runs/experiments --jobs=2
  alignax report runs/experiments --by=algorithm,algorithm_kw.loss \
      --baseline='dpo dpo'

All start from one SFT model, and are compared along their way: what the gold
scorer gives their samples (at temperature 1) when they first came past a KL.
"""

from alignax import sweeps
from experiments import common

SEEDS = 5
# Losses with a reference, of `configs/dpo.py`.
PAIR_LOSSES = (
  'dpo', 'ipo', 'hinge', 'robust_dpo', 'exo_pair', 'nca_pair', 'bco_pair',
  'sppo', 'aot', 'apo_zero', 'apo_down', 'discopop',
)  # fmt: skip


def get_sweep():
  runs = [
    common.pairs(loss) for loss in (*PAIR_LOSSES, *common.WITHOUT_REFERENCE)
  ]
  # Its reward model is trained on the same comparisons, once.
  runs.append(common.ppo(common.reward()))
  return sweeps.seeds(runs, SEEDS)
