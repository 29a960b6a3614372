r"""TPO: imitate the best of three, prefer the second to the worst.

  alignax train --config=configs/tpo.py:size=tiny --workdir=runs/tpo

43 s on two cores (AMD EPYC), the SFT that it starts from included; held-out
loss 2.48 -> 2.29, gold score of 32 samples 0.31 -> 0.38.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(arg, data='', init_from='', beta=2.0, gamma=0.5)
  config.algorithm = 'alignax.algorithms.tpo'
  config.algorithm_kw = dict(
    beta=args.beta,
    gamma=args.gamma,
    average_logps=True,
    nll_coef=1.0,
    microbatches=1,
  )
  common.offline(config, args, 'rankings')
  return config
