"""Proxy reward models of several sizes and data sizes, optimised against.

  alignax sweep --sweep=experiments/overoptimization/sweep.py \
      --workdir=runs/experiments --jobs=2
  python -m experiments.overoptimization.measure runs/experiments

Seven proxies: four sizes on 4,000 comparisons, and the largest on four numbers
of comparisons. Against each, PPO with and without a KL penalty; DPO on the
comparisons themselves; best-of-N is done by `measure.py`.
"""

from alignax import sweeps
from experiments import common

WIDTHS = (32, 64, 96, 128)  # Of the proxies; the policy has 128.
DATA = {60: 30, 250: 60, 1000: 100, 4000: 100}  # Comparisons: steps on them.
PENALTIES = (0.0, 0.1)
LONG = {
  'total_steps': 100,
  'optimizer.learning_rate': 3e-4,
  'data.batch_size': 32,
  'evals.probes.every': 5,
}


def proxies():
  """Reward models by name; each starts from a pretrained model of its size."""
  found = {}
  for width in WIDTHS:
    heads = dict.fromkeys(
      ('model.num_heads', 'model.num_kv_heads'), width // 32
    )
    size = {'model.width': width, 'model.mlp_width': 3 * width, **heads}
    base = sweeps.run(
      common.STAGE.format('pretrain'), size, name=f'width {width}'
    )
    start = base if width < WIDTHS[-1] else common.pretrained()
    for number, steps in DATA.items():
      if width == WIDTHS[-1] or number == max(DATA):
        name = f'proxy of width {width} on {number:,}'
        found[name] = common.reward(
          number, name=name, start=start, total_steps=steps
        )
  return found


def get_sweep():
  runs = []
  for name, proxy in proxies().items():
    for penalty in PENALTIES:
      overrides = {**LONG, 'algorithm_kw.kl_coef': penalty}
      told = f'ppo, KL x {penalty:g}, {name}'
      runs.append(common.ppo(proxy, name=told, **overrides))
  for number in DATA:
    long = {'total_steps': 100, 'evals.probes.every': 5}
    runs.append(common.pairs('dpo', number, name=f'dpo on {number:,}', **long))
  return runs
