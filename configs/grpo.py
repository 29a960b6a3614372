r"""GRPO: no value model, a response is judged beside others to its prompt.

  alignax train --config=configs/grpo.py:size=tiny --workdir=runs/grpo

`variant=dapo` or another name in VARIANTS sets what its paper sets.
"""

from configs import common

VARIANTS = {
  'grpo': dict(kl_coef=0.04),
  # No division by what favours short, or easy and hard, responses.
  'dr_grpo': dict(scale='none', average='budget'),
  'dapo': dict(average='token', clip_high=0.28, rounds=3),
  'gspo': dict(ratio='sequence', clip_low=3e-4, clip_high=4e-4),
  'gmpo': dict(ratio='geometric', clip_low=0.4, clip_high=0.4),
  'cispo': dict(loss='cispo', average='token', cap=5.0),
  'sapo': dict(loss='sapo', tau_positive=1.0, tau_negative=1.05),
}


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', reward='', variant='grpo', group=8
  )
  common.check_choice('variant', args.variant, VARIANTS)
  config.algorithm = 'alignax.algorithms.grpo'
  variant = VARIANTS[args.variant]
  loss = variant.get('loss', 'clipped_policy')
  config.algorithm_kw = (
    common.loss_kw(loss)
    | common.SAMPLING
    | dict(
      group=args.group,
      rounds=1,
      scale='group',
      average='sequence',
      loss=loss,
      ratio='token',
      kl_coef=0.0,
      kl_kind='k3',
      overlong_cache=0,
      mask_truncated=False,
      importance='none',
      importance_cap=2.0,
      epochs=1,
      minibatches=2,
      microbatches=1,
    )
  )
  common.online(config, args)
  config.algorithm_kw.update(variant)
  if args.variant == 'dapo':
    config.algorithm_kw.overlong_cache = config.algorithm_kw.max_new_tokens // 4
  config.data.batch_size *= config.algorithm_kw.rounds
  return config
