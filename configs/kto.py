r"""KTO: learn from single responses that are called good or bad.

  alignax train --config=configs/kto.py:size=tiny --workdir=runs/kto

41 s on two cores (AMD EPYC), the SFT that it starts from included; right side
of the KL point, held out, 0.50 -> 0.77.

With `loss=bco` or `loss=apo_zero_unpaired` it is one of its relatives. Rows of
preference pairs do as well: each gives a good and a bad response.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(arg, data='', init_from='', loss='kto', beta=0.1)
  config.algorithm = 'alignax.algorithms.kto'
  config.algorithm_kw = dict(
    loss=args.loss,
    microbatches=1,
    **common.loss_kw(args.loss, like='apo_zero_unpaired', beta=args.beta),
  )
  common.offline(config, args, 'unpaired', rows=2000)
  if args.size == 'smollm2':
    config.data.batch_size = 8
  return config
