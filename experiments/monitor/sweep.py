"""How early the monitor warns of reward hacking, and how often for nothing.

  alignax sweep --sweep=experiments/monitor/sweep.py \
      --workdir=runs/experiments --jobs=2
  python -m experiments.monitor.table runs/experiments

PPO against two reward models. The weak one was trained on 60 comparisons by
annotators who like length, and has no KL penalty beside it: it can be hacked.
The strong one, of 4,000 comparisons and with a penalty, is there for the false
alarms. Ten seeds of each; nothing is stopped, so that it can be seen what would
have been lost, and where.
"""

from alignax import sweeps

SEEDS = 10
STAGE = 'configs/quickstart.py:stage={}'
WEAK = 'synthetic:preferences?n=60&seed=0&split=train&length_bias=0.5'
STRONG = 'synthetic:preferences?n=4000&seed=0&split=train'
WATCHED = {
  'total_steps': 80,
  'optimizer.learning_rate': 3e-4,
  'data.heldout_path': 'synthetic:prompts?n=128&seed=1&split=heldout',
  'evals.samples': 0,
  'evals.probes.every': 4,
  'evals.probes.prompts': 128,
  'evals.probes.per_prompt': 1,
  'monitor.proxy': 'probes/reward',
  'monitor.judge': 'probes/total',
  'log.every': 10,
  'log.tensorboard': False,
}


def get_sweep():
  sft = sweeps.run(STAGE.format('sft'), name='sft')
  runs = []
  for name, path, steps, kl_coef in (
    ('weak', WEAK, 60, 0.0),
    ('strong', STRONG, 100, 0.1),
  ):
    # The weak model's rows are few: its held-out ones are drawn apart.
    apart = {
      'data.path': path,
      'data.heldout': 0,
      'data.heldout_path': path.replace('n=60', 'n=128')
      .replace('n=4000', 'n=128')
      .replace('split=train', 'split=heldout'),
      'total_steps': steps,
    }
    reward = sweeps.run(
      STAGE.format('reward'), apart, name=f'{name} reward', after=sft
    )
    runs.append(
      sweeps.run(
        STAGE.format('ppo'),
        {**WATCHED, 'algorithm_kw.kl_coef': kl_coef},
        name=f'ppo on {name}',
        after={'init_from': sft, 'role_from.reward': reward},
      )
    )
  return sweeps.seeds(runs, SEEDS)
