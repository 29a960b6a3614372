r"""SimPO: prefer by log-probs per token, without a reference.

  alignax train --config=configs/simpo.py:size=tiny --workdir=runs/simpo

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
    **common.loss_kw(args.loss, beta=args.beta, gamma=args.gamma),
  )
  config.data.packing = True
  config.optimizer.update(learning_rate=1e-6, warmup_steps=10)
  if args.size == 'tiny':
    common.tiny(config, 'preferences', 1000)
    config.init_from = 'configs/sft.py:size=tiny'
    config.total_steps = 60
    config.optimizer.update(learning_rate=1e-4)
  elif args.size == 'smollm2':
    common.smollm2(config)
    config.init_from = 'runs/sft'
    config.total_steps = 40
    config.data.heldout = 100
    config.optimizer.learning_rate = 1e-5
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  return config
