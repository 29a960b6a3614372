r"""Distillation: a student learns the distribution of a teacher.

  alignax train --config=configs/distill.py:size=tiny --workdir=runs/distill

35 s on two cores (AMD EPYC), the SFT of its teacher included; held-out loss
4.70 -> 0.20, gold score of 32 samples 0.00 -> 0.23.

`loss` is forward_kl, reverse_kl or generalized_jsd (with `beta`); `on_policy`
is the share of steps on the student's own responses (GKD).
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', teacher='', loss='forward_kl', on_policy=0.0
  )
  config.algorithm = 'alignax.algorithms.distill'
  config.algorithm_kw = dict(
    loss=args.loss,
    top_k=0,
    on_policy=args.on_policy,
    max_new_tokens=64,
    sampling_temperature=1.0,
    stop_ids=(),  # Those of the tokenizer.
    microbatches=1,
    **common.loss_kw(args.loss, like='forward_kl'),
  )
  config.data.packing = args.on_policy == 0
  config.optimizer.update(learning_rate=2e-5, warmup_steps=10)
  if args.size == 'tiny':
    common.tiny(config, 'demonstrations', 1000)
    config.model.update(width=64, depth=2, mlp_width=192)
    config.role_from.teacher = 'configs/sft.py:size=tiny'
    # Rows with responses of the student's own are not packed: fewer a step.
    config.total_steps = 60 if config.data.packing else 120
    config.algorithm_kw.max_new_tokens = 24
    config.optimizer.update(name='muon', learning_rate=0.02)
  elif args.size == 'smollm2':
    common.smollm2(config)
    config.role_from.teacher = 'runs/dpo'
    config.total_steps = 60
    config.data.heldout = 64
    config.algorithm_kw.max_new_tokens = 48
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  config.role_from.teacher = args.teacher or config.role_from.teacher
  return config
