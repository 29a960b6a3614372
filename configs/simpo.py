r"""SimPO: prefer by log-probs per token, without a reference.

  alignax train --config=configs/simpo.py:size=tiny --workdir=runs/simpo

36 s on two cores (AMD EPYC), the SFT that it starts from included; accuracy on
held-out pairs 0.61 -> 0.67.

With `loss=alphapo` the reward has another shape; with `nll_coef` above 0 it is
CPO-SimPO. `beta` and `gamma` are those of the paper, γ on the scale of β s̄.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', loss='simpo', beta=2.0, gamma=0.5
  )
  config.algorithm = 'alignax.algorithms.simpo'
  config.algorithm_kw = dict(
    loss=args.loss,
    nll_coef=0.0,
    microbatches=1,
    **common.loss_kw(
      args.loss, like='simpo', beta=args.beta, gamma=args.gamma
    ),
  )
  common.offline(config, args, 'preferences')
  return config
