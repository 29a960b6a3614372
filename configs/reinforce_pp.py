r"""REINFORCE++: PPO without a value model, advantages whitened as one.

  alignax train --config=configs/reinforce_pp.py:size=tiny --workdir=runs/rpp

53 s on two cores (AMD EPYC), SFT and reward model included; reward 0.16 -> 0.88
of 32 samples, as the reward model says.

`variant=baseline` takes the mean of a prompt's scores off first.
"""

from configs import common

VARIANTS = {
  'plain': dict(group=1, baseline='none', kl_in='reward'),
  'baseline': dict(group=4, baseline='group', kl_in='loss'),
}


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', reward='', variant='plain', kl_coef=0.01
  )
  if args.variant not in VARIANTS:
    raise ValueError(
      f'variant={args.variant}; it is one of {", ".join(VARIANTS)}.'
    )
  variant = VARIANTS[args.variant]
  config.algorithm = 'alignax.algorithms.reinforce_pp'
  config.algorithm_kw = common.SAMPLING | dict(
    variant,
    kl_coef=args.kl_coef,
    gamma=1.0,
    clip_low=0.2,
    clip_high=0.2,
    epochs=1,
    minibatches=2,
    microbatches=1,
  )
  common.online(config, args, prompts=32 // variant['group'], rate=3e-4)
  return config
