r"""RAFT: imitate the best of several responses, again and again.

  alignax train --config=configs/raft.py:size=tiny --workdir=runs/raft

50 s on two cores (AMD EPYC), SFT and reward model included; reward 0.16 -> 0.95
of 32 samples, as the reward model says.

Where rewards are verified, `min_score=1` imitates right answers only.
"""

from configs import common

LEAST = -1e30  # Below every score; a number, so that the command line sets it.


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', reward='', group=4, min_score=LEAST
  )
  config.algorithm = 'alignax.algorithms.raft'
  config.algorithm_kw = common.SAMPLING | dict(
    group=args.group,
    min_score=args.min_score,
    epochs=1,
    minibatches=1,
    microbatches=1,
  )
  common.online(config, args, prompts=16, rate=5e-4)
  return config
