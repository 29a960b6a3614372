"""How early the monitor warns of reward hacking, and how often for nothing.

  alignax sweep --sweep=experiments/monitor/sweep.py \
      --workdir=runs/experiments --jobs=2
  python -m experiments.monitor.table runs/experiments

PPO against three reward models. The wrong one was trained on 60 comparisons by
annotators who like length, the weak one on 1,000 honest ones; neither has a KL
penalty beside it, and both can be hacked, at once and in time. The strong one,
of 4,000 comparisons and with a penalty, is there for the false alarms. Ten
seeds of each; nothing is stopped, so that it can be seen what would have been
lost, and where.
"""

from alignax import sweeps
from experiments import common

SEEDS = 10
WATCHED = {
  'total_steps': 80,
  'optimizer.learning_rate': 3e-4,
  'evals.probes.every': 4,
  'evals.probes.per_prompt': 1,
  'monitor.proxy': 'probes/reward',
  'monitor.judge': 'probes/total',
}


def get_sweep():
  wrong = common.reward(
    60, biased={'length_bias': 0.5}, name='wrong reward', total_steps=60
  )
  weak = common.reward(1000, name='weak reward')
  strong = common.reward(name='strong reward')
  runs = [
    common.ppo(
      judge, name=f'ppo on {name}', **WATCHED, **{'algorithm_kw.kl_coef': coef}
    )
    for name, judge, coef in (
      ('wrong', wrong, 0.0), ('weak', weak, 0.0), ('strong', strong, 0.1)
    )
  ]  # fmt: skip
  return sweeps.seeds(runs, SEEDS)
