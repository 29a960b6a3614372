r"""Rounds of rejection sampling, SFT and DPO, as Llama 3 was aligned.

  alignax train --config=configs/llama3_rounds.py:size=tiny --workdir=runs/l3

56 s on two cores (AMD EPYC), SFT and reward model included; reward 0.16 -> 0.91
of 32 samples, as the reward model says.

Every part of a round warms its learning rate up anew.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', reward='', group=4, beta=0.1, restart=True,
    sft_steps=10, dpo_steps=10,
  )  # fmt: skip
  config.algorithm = 'alignax.algorithms.llama3_rounds'
  config.algorithm_kw = common.loss_kw('dpo', beta=args.beta) | dict(
    common.SAMPLING,
    group=args.group,
    sft_steps=args.sft_steps,
    dpo_steps=args.dpo_steps,
    restart=args.restart,
    nll_coef=0.2,
    loss='dpo',
    microbatches=1,
  )
  common.online(config, args, prompts=8, rate=3e-4)
  config.total_steps = 2 * (args.sft_steps + args.dpo_steps)
  config.optimizer.warmup_steps = 2
  return config
