"""Pair losses and PPO at equal KL: who gains most for the distance gone?

  alignax sweep --sweep=experiments/preference_losses/sweep.py \
      --workdir=runs/preference_losses --jobs=2
  alignax report runs/preference_losses --by=algorithm,algorithm_kw.loss \
      --baseline='dpo dpo'

All start from one SFT model, and are compared along their way: what the gold
scorer gives their samples (at temperature 1) when they first came past a KL.
"""

from alignax import sweeps

SEEDS = 5
# Losses with a reference, of `configs/dpo.py`.
PAIR_LOSSES = (
  'dpo', 'ipo', 'hinge', 'robust_dpo', 'exo_pair', 'nca_pair', 'bco_pair',
  'sppo', 'aot', 'apo_zero', 'apo_down', 'discopop',
)  # fmt: skip
# Pair losses with an algorithm of their own; none has a reference.
WITHOUT_REFERENCE = ('simpo', 'orpo', 'cpo')

# The model of the quickstart, and what its stages are trained on.
MODEL = {'model.depth': 3, 'model.tie_embeddings': False}
HELDOUT = 'synthetic:preferences?n=128&seed=1&split=heldout'
PAIRS = {
  'data.path': 'synthetic:preferences?n=4000&seed=0&split=train',
  'data.batch_size': 12,  # Packed: some 35 pairs.
  'optimizer.learning_rate': 2e-4,
  'optimizer.warmup_steps': 5,
  'total_steps': 80,
}
MEASURED = {
  'data.heldout_path': HELDOUT,
  'evals.samples': 0,
  'evals.probes.every': 10,
  'evals.probes.prompts': 128,
  'log.every': 10,
  'log.tensorboard': False,
}
STAGE = 'configs/quickstart.py:stage={}'


def get_sweep():
  sft = sweeps.run(STAGE.format('sft'), name='sft')
  pairs = [f'configs/dpo.py:size=tiny,loss={loss}' for loss in PAIR_LOSSES]
  pairs += [f'configs/{name}.py:size=tiny' for name in WITHOUT_REFERENCE]
  names = (*PAIR_LOSSES, *WITHOUT_REFERENCE)
  runs = [
    sweeps.run(config, {**MODEL, **PAIRS, **MEASURED}, name=name, after=sft)
    for config, name in zip(pairs, names)
  ]
  # Its reward model is trained on the same comparisons, once.
  reward = sweeps.run(
    STAGE.format('reward'),
    {'data.path': PAIRS['data.path']},
    name='reward',
    after=sft,
  )
  ppo = sweeps.run(
    STAGE.format('ppo'),
    {**MEASURED, 'evals.probes.every': 5},
    name='ppo',
    after={'init_from': sft, 'role_from.reward': reward},
  )
  return sweeps.seeds([*runs, ppo], SEEDS)
