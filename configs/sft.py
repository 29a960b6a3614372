r"""SFT: instruction tuning on demonstrations.

  alignax train --config=configs/sft.py:size=tiny --workdir=runs/sft
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(arg, data='', init_from='')
  config.algorithm = 'alignax.algorithms.sft'
  config.algorithm_kw = dict(
    neftune=0.0,
    label_smoothing=0.0,
    z_loss=0.0,
    average='token',
    microbatches=1,
  )
  config.data.packing = True
  config.optimizer.update(learning_rate=2e-5, warmup_steps=10)
  if args.size == 'tiny':
    common.tiny(config, 'demonstrations', 1000)
    config.total_steps = 150
    config.optimizer.update(learning_rate=3e-3)
  elif args.size == 'smollm2':
    common.smollm2(config)
    config.total_steps = 60
    config.data.heldout = 64
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  return config
