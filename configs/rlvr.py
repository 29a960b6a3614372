r"""RLVR: GRPO or PPO on rewards that a program verifies.

  alignax train --config=configs/rlvr.py:size=tiny --workdir=runs/rlvr

44 s on two cores (AMD EPYC), the SFT that it starts from included; gold score
0.12 -> 0.24 of the responses of a step.

`algorithm=ppo` learns a value function instead of sampling groups; `variant=`
and `loss=` are those of `grpo.py`. On SmolLM2, prompts in the format of IFEval
come with instructions that can be checked; `reward=number` and `reward=math`
read the answer in a row's `answer`. Several rewards add up, each with a weight:

  alignax train --config=configs/rlvr.py:reward=math+format:0.2,data=math.jsonl

  alignax train --config=configs/rlvr.py:size=smollm2,data=ifeval_train.jsonl \
      --workdir=runs/rlvr
"""

from configs import common, grpo, ppo

ALGORITHMS = {'grpo': grpo, 'ppo': ppo}
REWARDS = {
  'gold': dict(kind='checker', name='gold'),
  'ifeval': dict(kind='checker', name='ifeval', timeout=10.0),
  'number': dict(kind='checker', name='number'),
  'math': dict(kind='checker', name='math', timeout=10.0),
  'exact': dict(kind='checker', name='exact'),
  'format': dict(kind='checker', name='format'),
}


def get_config(arg=None):
  args = common.parse_arg(
    arg, size='tiny', algorithm='grpo', data='', init_from='', reward='',
    variant='', loss='',
  )  # fmt: skip
  common.check_choice('algorithm', args.algorithm, ALGORITHMS)
  given = {k: args[k] for k in ('size', 'variant', 'loss') if args[k]}
  config = ALGORITHMS[args.algorithm].get_config(
    ','.join(f'{name}={value}' for name, value in given.items())
  )
  config.role_from.reward = ''  # Nothing is asked of a reward model.
  default = {'tiny': 'gold'}.get(args.size, 'ifeval')
  config.rewards = rewards_of(args.reward or default)
  if args.size == 'smollm2':
    config.data.update(length=96, heldout=0)
    config.algorithm_kw.update(max_new_tokens=64, microbatches=4)
    if args.algorithm == 'grpo':  # Too few steps to go far: no leash.
      config.algorithm_kw.kl_coef = 0.0
    if config.algorithm_kw.get('overlong_cache'):
      config.algorithm_kw.overlong_cache = 64 // 4
    config.total_steps = 24
    config.optimizer.learning_rate = 3e-5
    config.evals.sampling.max_new_tokens = 64
    config.evals.samples = 8
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  return config


def rewards_of(text: str) -> dict:
  """'math+format:0.2' -> the rewards by name.

  Of several, each has its weight as a key.
  """
  found, several = {}, '+' in text
  for item in text.split('+'):
    name, _, weight = item.partition(':')
    common.check_choice('reward', name, REWARDS)
    found[name] = dict(REWARDS[name])
    if weight or several:
      found[name]['weight'] = common.typed('reward', weight or '1', float)
  return found
