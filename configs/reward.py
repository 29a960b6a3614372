r"""Reward model: learn from comparisons which response people prefer.

  alignax train --config=configs/reward.py:size=tiny --workdir=runs/reward

35 s on two cores (AMD EPYC), the SFT that it starts from included; accuracy on
held-out pairs 0.50 -> 0.69.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(arg, data='', init_from='', kind='pairs')
  config.algorithm = 'alignax.algorithms.reward'
  config.algorithm_kw = dict(
    center=0.01, use_margins=False, ranking='plackett_luce', microbatches=1
  )
  config.data.kind = args.kind
  config.data.packing = True
  config.optimizer.update(learning_rate=1e-5, warmup_steps=10)
  if args.size == 'tiny':
    name = {'pairs': 'preferences', 'rankings': 'rankings'}[args.kind]
    common.tiny(config, name, 1000)
    config.init_from = 'configs/sft.py:size=tiny'
    config.total_steps = 30
    config.optimizer.update(name='muon', learning_rate=5e-3, warmup_steps=3)
  elif args.size == 'smollm2':
    common.smollm2(config, length=192, batch_size=8)
    config.init_from = 'runs/sft'
    config.total_steps = 74
    config.data.update(heldout=160, packing=False)
    config.algorithm_kw.microbatches = 4
    config.optimizer.learning_rate = 5e-5
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  return config
