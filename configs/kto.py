r"""KTO: learn from single responses that are called good or bad.

  alignax train --config=configs/kto.py:size=tiny --workdir=runs/kto

With `loss=bco` or `loss=apo_zero_unpaired` it is one of its relatives. Rows of
preference pairs do as well: each gives a good and a bad response.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(arg, data='', init_from='', loss='kto', beta=0.1)
  config.algorithm = 'alignax.algorithms.kto'
  config.algorithm_kw = dict(loss=args.loss, beta=args.beta, microbatches=1)
  if args.loss in ('kto', 'apo_zero_unpaired'):
    config.algorithm_kw.update(desirable_weight=1.0, undesirable_weight=1.0)
  config.data.packing = True
  config.optimizer.update(learning_rate=1e-6, warmup_steps=10)
  if args.size == 'tiny':
    common.tiny(config, 'unpaired', 2000)
    config.init_from = 'configs/sft.py:size=tiny'
    config.total_steps = 60
    config.optimizer.update(learning_rate=1e-4)
  elif args.size == 'smollm2':
    common.smollm2(config, batch_size=8)
    config.init_from = 'runs/sft'
    config.total_steps = 40
    config.data.heldout = 100
    config.optimizer.learning_rate = 1e-5
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  return config
