r"""ReMax: REINFORCE, the greedy response being the baseline.

  alignax train --config=configs/remax.py:size=tiny --workdir=runs/remax

58 s on two cores (AMD EPYC), SFT and reward model included; reward 0.16 -> 0.83
of 32 samples, as the reward model says.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', reward='', kl_coef=0.05
  )
  config.algorithm = 'alignax.algorithms.remax'
  config.algorithm_kw = common.SAMPLING | dict(
    kl_coef=args.kl_coef, microbatches=1
  )
  common.online(config, args, prompts=32, rate=3e-4)
  return config
