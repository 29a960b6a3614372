"""Few good demonstrations or many bad ones, and who bears noisy comparisons.

  alignax sweep --sweep=experiments/data_quality/sweep.py \
      --workdir=runs/experiments --jobs=2

Demonstrations: 1,000 clean ones against 10,000 of which half are wrong, for the
same number of steps, few and many. Comparisons: annotators of three noises, and
for each DPO on their choices and PPO on a reward model of them.
"""

from alignax import sweeps
from experiments import common

SEEDS = 3
DEMONSTRATIONS = {
  'clean 1,000': common.world('demonstrations', 1000, quality='clean'),
  'noisy 10,000': common.world('demonstrations', 10000, quality='0.2,0.3,0.5'),
}
STEPS = (120, 400)
# Gold score that makes a difference of one in log-odds to an annotator.
NOISES = (0.1, 0.4, 1.6)
ASKED = {
  **common.ASKED,
  'data.heldout_path': common.world(
    'demonstrations', 256, seed=1, split='heldout', quality='clean'
  ),
  'evals.probes.every': 0,
  'evals.samples': 256,
  'evals.sampling.temperature': 1.0,
}


def get_sweep():
  runs = [
    sweeps.run(
      common.STAGE.format('sft'),
      {**ASKED, 'data.path': path, 'total_steps': steps},
      name=f'{name}, {steps} steps',
      after=common.pretrained(),
    )
    for name, path in DEMONSTRATIONS.items()
    for steps in STEPS
  ]
  for noise in NOISES:
    # At 0.1, the default, runs are those of other experiments.
    biased = {'noise': noise} if noise != 0.1 else {}
    judge = common.reward(biased=biased, name=f'reward, noise {noise}')
    runs += [
      common.pairs('dpo', biased=biased, name=f'dpo, noise {noise}'),
      common.ppo(judge, name=f'ppo, noise {noise}'),
    ]
  return sweeps.seeds(runs, SEEDS)
