r"""DPO: learn from comparisons without a reward model.

  alignax train --config=configs/dpo.py:size=tiny --workdir=runs/dpo

44 s on two cores (AMD EPYC), the SFT that it starts from included; accuracy on
held-out pairs 0.50 -> 0.59.

With `loss=` it is one of its relatives: ipo, hinge, robust_dpo, exo_pair,
nca_pair, bco_pair, sppo, aot, apo_zero, apo_down, discopop; or the dotted name
of your own. What else a loss takes is in `algorithm_kw`.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(arg, data='', init_from='', loss='dpo', beta=0.1)
  config.algorithm = 'alignax.algorithms.dpo'
  config.algorithm_kw = dict(
    loss=args.loss,
    average_logps=False,
    ld_alpha=1.0,
    wpo=False,
    nll_coef=0.0,
    microbatches=1,
    **common.loss_kw(args.loss, like='dpo', beta=args.beta),
  )
  common.offline(config, args, 'preferences')
  if args.size == 'smollm2':
    config.data.update(length=192, batch_size=8, heldout=140, packing=False)
    config.total_steps = 24
    config.algorithm_kw.microbatches = 4
    config.optimizer.update(learning_rate=2e-5, warmup_steps=3)
  return config
