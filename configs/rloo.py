r"""RLOO: REINFORCE, the other responses to a prompt being the baseline.

  alignax train --config=configs/rloo.py:size=tiny --workdir=runs/rloo

57 s on two cores (AMD EPYC), SFT and reward model included; reward 0.16 -> 0.89
of 32 samples, as the reward model says.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', reward='', group=4, kl_coef=0.05
  )
  config.algorithm = 'alignax.algorithms.rloo'
  config.algorithm_kw = common.SAMPLING | dict(
    group=args.group, kl_coef=args.kl_coef, microbatches=1
  )
  common.online(config, args, prompts=16, rate=3e-4)
  return config
