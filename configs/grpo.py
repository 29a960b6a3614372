r"""GRPO: no value model, a response is judged beside others to its prompt.

  alignax train --config=configs/grpo.py:size=tiny --workdir=runs/grpo

57 s on two cores (AMD EPYC), SFT and reward model included; reward 0.16 -> 1.00
of 32 samples, as the reward model says.

`variant=dapo` or another name in VARIANTS sets what its paper sets. With
`loss=` another policy loss takes the place of the variant's: clipped_policy,
cispo, sapo, vespo, or the dotted name of your own; what it takes is in
`algorithm_kw`. `dual_clip=3` bounds the ratio of bad tokens too, where the loss
is clipped.
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
    arg, data='', init_from='', reward='', variant='grpo', group=8, loss='',
    dual_clip=0.0,
  )  # fmt: skip
  common.check_choice('variant', args.variant, VARIANTS)
  config.algorithm = 'alignax.algorithms.grpo'
  variant, loss = variant_of(args.variant, args.loss)
  config.algorithm_kw = (
    common.loss_kw(loss, like='clipped_policy')
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
      kl_times_ratio=False,
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
  if args.dual_clip:
    common.check_choice('loss', loss, ['clipped_policy'])
    config.algorithm_kw.dual_clip = args.dual_clip
  return config


def variant_of(name: str, loss: str) -> tuple[dict, str]:
  """What a variant sets, and its loss or the one that is put in its place."""
  variant = dict(VARIANTS[name])
  own = variant.pop('loss', 'clipped_policy')
  if loss and loss != own:
    for key in common.loss_kw(own):  # Those of a loss that is not there.
      variant.pop(key, None)
  return variant, loss or own
