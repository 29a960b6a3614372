r"""C-RLFT: SFT on data of mixed quality, of which rows say their class.

  alignax train --config=configs/c_rlft.py:size=tiny --workdir=runs/c_rlft

19 s on two cores (AMD EPYC); gold score of 32 samples 0.00 -> 0.14.

A row is a conversation with a number `class`, 0 for the best, and a prompt that
tells the class in its messages; sample with the prompt of class 0.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(arg, data='', init_from='', beta=1.0)
  config.algorithm = 'alignax.algorithms.c_rlft'
  config.algorithm_kw = dict(rewards=(1.0, 0.1), beta=args.beta, microbatches=1)
  config.data.packing = True
  config.optimizer.update(learning_rate=2e-5, warmup_steps=10)
  if args.size == 'tiny':
    common.tiny(config, 'classes', 2000)
    # What is measured is what the model says when told the best class.
    config.data.heldout_path += '&experts=1'
    config.total_steps = 60
    config.optimizer.update(name='muon', learning_rate=0.02)
  elif args.size == 'smollm2':
    common.smollm2(config)
    config.total_steps = 60
    config.data.heldout = 64
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  return config
