"""Pair losses and PPO at equal KL: who gains most for the distance gone?

  alignax sweep --sweep=experiments/preference_losses/sweep.py \
      --workdir=runs/experiments --jobs=2
  alignax report runs/experiments --by=algorithm,algorithm_kw.loss \
      --baseline='dpo dpo'

All start from one SFT model. Where they come out is compared with DPO at the
same KL, which several values of its beta are there for.
"""

from alignax import sweeps
from experiments import common

SEEDS = 5
# Losses with a reference, of `configs/dpo.py`.
PAIR_LOSSES = (
  'dpo', 'ipo', 'hinge', 'robust_dpo', 'exo_pair', 'nca_pair', 'bco_pair',
  'sppo', 'aot', 'apo_zero',
)  # fmt: skip
# At DPO's learning rate and β these two do not leave a model to compare.
OWN = {
  'apo_down': {'optimizer.learning_rate': 3e-5},
  'discopop': {'algorithm_kw.beta': 1.0},
}
BETAS = (0.03, 0.3, 1.0)  # Of DPO, beside its 0.1.


def get_sweep():
  runs = [
    common.pairs(loss) for loss in (*PAIR_LOSSES, *common.WITHOUT_REFERENCE)
  ]
  runs += [
    common.pairs(loss, name=f'{loss}, {told(changes)}', **changes)
    for loss, changes in OWN.items()
  ]
  runs += [
    common.pairs('dpo', name=f'dpo, beta {b:g}', **{'algorithm_kw.beta': b})
    for b in BETAS
  ]
  # Its reward model is trained on the same comparisons, once.
  runs.append(common.ppo(common.reward()))
  return sweeps.seeds(runs, SEEDS)


def told(changes) -> str:
  ((key, value),) = changes.items()
  return f'{key.rpartition(".")[2].replace("_", " ")} {value:g}'
