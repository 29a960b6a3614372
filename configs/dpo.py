r"""DPO: learn from comparisons without a reward model.

  alignax train --config=configs/dpo.py:size=tiny --workdir=runs/dpo

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
    **common.loss_kw(args.loss, beta=args.beta),
  )
  config.data.packing = True
  config.optimizer.update(learning_rate=1e-6, warmup_steps=10)
  if args.size == 'tiny':
    common.tiny(config, 'preferences', 1000)
    config.init_from = 'configs/sft.py:size=tiny'
    config.total_steps = 60
    config.optimizer.update(learning_rate=1e-4)
  elif args.size == 'smollm2':
    common.smollm2(config, length=192, batch_size=8)
    config.init_from = 'runs/sft'
    config.total_steps = 24
    config.data.update(heldout=140, packing=False)
    config.algorithm_kw.microbatches = 4
    config.optimizer.update(learning_rate=2e-5, warmup_steps=3)
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  return config
