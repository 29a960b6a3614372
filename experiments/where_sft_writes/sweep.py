"""Which layers does SFT change most, and how much rank does it need?

  alignax sweep --sweep=experiments/where_sft_writes/sweep.py \
      --workdir=runs/experiments --jobs=2

SFT of all weights and of adapters of rank 1 to 64, on a pretrained model of six
layers, with the relative change of every layer's weights.
"""

from alignax import sweeps
from experiments import common

SEEDS = 3
RANKS = (0, 1, 4, 16, 64)
DEEP = {'model.depth': 6, 'model.width': 96, 'model.num_heads': 3,
        'model.num_kv_heads': 3, 'model.mlp_width': 288}  # fmt: skip
RATES = {0: 2e-3}  # Of all weights; adapters bear more.
ASKED = {
  **common.QUIET,
  'data.heldout_path': common.world(
    'demonstrations', 256, seed=1, split='heldout'
  ),
  'evals.samples': 256,
  'evals.sampling.temperature': 1.0,
  'evals.probes.every': 160,
  'evals.probes.prompts': 64,
}


def get_sweep():
  start = sweeps.run(common.STAGE.format('pretrain'), DEEP, name='six layers')
  runs = []
  for rank in RANKS:
    adapters = {'lora.rank': rank, 'lora.alpha': 2.0 * rank}
    overrides = {
      **ASKED,
      **(adapters if rank else {}),
      'optimizer.learning_rate': RATES.get(rank, 5e-3),
    }
    name = f'rank {rank}' if rank else 'all weights'
    runs.append(
      sweeps.run(
        common.STAGE.format('sft'), overrides, name=name, after=start
      )
    )
  return sweeps.seeds(runs, SEEDS)
