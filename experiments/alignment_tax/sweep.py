"""Does PPO forget what pretraining taught, and does mixing its text in help?

  alignax sweep --sweep=experiments/alignment_tax/sweep.py \
      --workdir=runs/experiments --jobs=2

PPO alone, and PPO-ptx with two weights of the pretraining loss.
"""

from alignax import sweeps
from experiments import common

SEEDS = 3
COEFS = (0.0, 0.1, 1.0)


def get_sweep():
  judge = common.reward()
  runs = []
  for coef in COEFS:
    mixed = {
      'algorithm_kw.ptx_coef': coef,
      'data.ptx_path': common.world('text', 4000, seed=3),
      'data.ptx_length': 64,
      'data.ptx_batch_size': 16,
    }
    overrides = {
      'evals.probes.every': 20,
      'evals.probes.text': common.world('text', 128, seed=1, split='heldout'),
      'evals.probes.text_length': 64,
      **(mixed if coef else {}),
    }
    runs.append(common.ppo(judge, name=f'ppo, ptx {coef:g}', **overrides))
  return sweeps.seeds(runs, SEEDS)
