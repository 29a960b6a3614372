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
  config.data.packing = True
  config.optimizer.update(learning_rate=1e-6, warmup_steps=10)
  if args.size == 'tiny':
    common.tiny(config, 'rankings', 1000)
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
