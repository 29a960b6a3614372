r"""CPO: prefer without a reference, and imitate what was chosen.

  alignax train --config=configs/cpo.py:size=tiny --workdir=runs/cpo

33 s on two cores (AMD EPYC), the SFT that it starts from included; held-out
loss 1.45 -> 1.41, gold score of 32 samples 0.34 -> 0.43.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(arg, data='', init_from='', beta=0.1)
  config.algorithm = 'alignax.algorithms.cpo'
  config.algorithm_kw = dict(
    beta=args.beta,
    label_smoothing=0.0,
    kind='sigmoid',
    nll_coef=1.0,
    microbatches=1,
  )
  common.offline(config, args, 'preferences')
  return config
