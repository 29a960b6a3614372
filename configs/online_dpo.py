r"""Online DPO: preferences between responses that the policy itself wrote.

  alignax train --config=configs/online_dpo.py:size=tiny --workdir=runs/odpo

51 s on two cores (AMD EPYC), SFT and reward model included; reward 0.16 -> 0.80
of 32 samples, as the reward model says.

`variant=iterative` goes in rounds of `round_steps`; `variant=xpo` compares with
responses of the reference, and `variant=nash_md` with those of an opponent
between the two.
"""

from configs import common

VARIANTS = ('online', 'iterative', 'xpo', 'nash_md')


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', reward='', variant='online', loss='dpo',
    beta=0.1, group=2, round_steps=10,
  )  # fmt: skip
  common.check_choice('variant', args.variant, VARIANTS)
  if args.variant == 'nash_md':
    config.algorithm = 'alignax.algorithms.nash_md'
    config.algorithm_kw = common.SAMPLING | dict(
      beta=args.beta, mixture=0.125, win_probs=False, microbatches=1
    )
  else:
    loss = 'xpo' if args.variant == 'xpo' else args.loss
    like = 'xpo' if loss == 'xpo' else 'dpo'
    config.algorithm = 'alignax.algorithms.online_dpo'
    config.algorithm_kw = common.loss_kw(loss, like=like, beta=args.beta)
    config.algorithm_kw.update(
      **common.SAMPLING,
      group=args.group,
      loss=loss,
      round_steps=args.round_steps if args.variant == 'iterative' else 0,
      microbatches=1,
    )
  common.online(config, args, prompts=16, rate=3e-4)
  return config
