r"""RAFT: imitate the best of several responses, again and again.

alignax train --config=configs/raft.py:size=tiny --workdir=runs/raft
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(arg, data='', init_from='', reward='', group=4)
  config.algorithm = 'alignax.algorithms.raft'
  config.algorithm_kw = common.SAMPLING | dict(
    group=args.group, min_score=None, epochs=1, minibatches=1, microbatches=1
  )
  common.online(config, args, prompts=32, rate=3e-4)
  return config
