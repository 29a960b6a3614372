"""Does it help to learn from one's own responses?

  alignax sweep --sweep=experiments/on_policy_data/sweep.py \
      --workdir=runs/experiments --jobs=2

Offline DPO learns from what people wrote; iterative DPO from what the policy
of the last round wrote, online DPO from what the policy writes now, PPO too.
The last three are judged by one reward model, of the comparisons that offline
DPO learns from. All see some 2,600 responses or pairs.
"""

from alignax import sweeps
from experiments import common

SEEDS = 3
ONLINE = 'configs/online_dpo.py:size=tiny,variant={}'
OWN = {
  **common.MODEL,
  **common.ASKED,
  'data.path': common.world('prompts', 4000, seed=2),
  'data.length': 32,
  'optimizer.learning_rate': 2e-4,
  'data.batch_size': 32,
  'total_steps': 80,
}


def get_sweep():
  judge = common.reward()
  after = {'init_from': common.sft(), 'role_from.reward': judge}
  own = [
    sweeps.run(
      ONLINE.format(variant),
      {**OWN, **more, 'algorithm_kw.beta': 0.1},
      name=f'{variant} dpo',
      after=after,
    )
    for variant, more in (
      ('iterative', {'algorithm_kw.round_steps': 20}), ('online', {}),
    )
  ]  # fmt: skip
  return sweeps.seeds([common.pairs('dpo'), *own, common.ppo(judge)], SEEDS)
