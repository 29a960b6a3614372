r"""TPO: imitate the best of three, prefer the second to the worst.

  alignax train --config=configs/tpo.py:size=tiny --workdir=runs/tpo
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
