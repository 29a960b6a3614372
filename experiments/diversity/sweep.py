"""What do best-of-N, DPO and PPO do to the variety of responses?

  alignax sweep --sweep=experiments/diversity/sweep.py \
      --workdir=runs/experiments --jobs=2
  python -m experiments.diversity.measure runs/experiments

The runs are those of other experiments; `measure.py` asks them instructions in
wordings that they know and in one that they do not.
"""

from alignax import sweeps
from experiments import common

SEEDS = 3


def get_sweep():
  judge = common.reward()
  return sweeps.seeds([common.pairs('dpo'), common.ppo(judge)], SEEDS)
