r"""ORPO: imitate chosen responses and prefer them, in one stage.

  alignax train --config=configs/orpo.py:size=tiny --workdir=runs/orpo
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(arg, data='', init_from='', beta=0.1)
  config.algorithm = 'alignax.algorithms.orpo'
  config.algorithm_kw = dict(beta=args.beta, microbatches=1)
  config.data.packing = True
  config.optimizer.update(learning_rate=8e-6, warmup_steps=10)
  if args.size == 'tiny':
    common.tiny(config, 'preferences', 1000)
    config.init_from = 'configs/sft.py:size=tiny'
    config.total_steps = 60
    config.optimizer.update(learning_rate=3e-4)
  elif args.size == 'smollm2':
    common.smollm2(config)
    config.init_from = 'runs/sft'
    config.total_steps = 40
    config.data.heldout = 100
    config.optimizer.learning_rate = 1e-5
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  return config
