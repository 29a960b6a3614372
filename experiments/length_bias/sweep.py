"""Annotators who like length: what does each algorithm make of it?

  alignax sweep --sweep=experiments/length_bias/sweep.py \
      --workdir=runs/experiments --jobs=2
  python -m experiments.length_bias.measure runs/experiments

A word more is worth nothing, or 0.4 of log-odds, to those who choose; there are
DPO, DPO that is desensitised to length, SimPO, and PPO on a reward model.
"""

from alignax import sweeps
from experiments import common

SEEDS = 3
BIASES = (0.0, 0.4)


def get_sweep():
  runs = []
  for bias in BIASES:
    biased = {'length_bias': bias} if bias else {}
    told = f', bias {bias:g}'
    judge = common.reward(biased=biased, name=f'reward{told}')
    ld = {'algorithm_kw.ld_alpha': 0.3}
    runs += [
      common.pairs('dpo', biased=biased, name=f'dpo{told}'),
      common.pairs('dpo', biased=biased, name=f'ld-dpo{told}', **ld),
      common.pairs('simpo', biased=biased, name=f'simpo{told}'),
      common.ppo(judge, name=f'ppo{told}'),
    ]
  return sweeps.seeds(runs, SEEDS)
