r"""CPO: prefer without a reference, and imitate what was chosen.

  alignax train --config=configs/cpo.py:size=tiny --workdir=runs/cpo
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
