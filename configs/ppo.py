r"""PPO: learn from a reward model, on a KL leash.

  alignax train --config=configs/ppo.py:size=tiny --workdir=runs/ppo

57 s on two cores (AMD EPYC), SFT and reward model included; reward 0.16 -> 0.87
of 32 samples, as the reward model says.

`dual_clip=3` bounds the ratio of bad tokens too.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', reward='', kl_coef=0.05, dual_clip=0.0
  )
  config.algorithm = 'alignax.algorithms.ppo'
  config.algorithm_kw = dict(
    max_new_tokens=64,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    stop_ids=(),  # Those of the tokenizer.
    missing_eos_penalty=1.0,
    score_clip=0.0,
    whiten_rewards=False,
    whiten_advantages=True,
    kl_coef=args.kl_coef,
    kl_kind='k1',
    kl_in='reward',
    target_kl=0.0,
    kl_horizon=10000,
    gamma=1.0,
    lam=0.95,
    clip=0.2,
    value_clip=0.2,
    value_coef=0.1,
    entropy_coef=0.0,
    ptx_coef=0.0,
    shared_value=False,
    epochs=1,
    minibatches=1,
    stop_kl=0.0,
    microbatches=1,
  )
  if args.dual_clip:
    config.algorithm_kw.dual_clip = args.dual_clip
  config.optimizer.update(
    learning_rate=1e-6, warmup_steps=5, schedule='constant'
  )
  if args.size == 'tiny':
    common.tiny(config, 'prompts', 2000)
    config.init_from = 'configs/sft.py:size=tiny'
    config.role_from.reward = 'configs/reward.py:size=tiny'
    config.total_steps = 20
    config.algorithm_kw.max_new_tokens = 24
    config.optimizer.update(learning_rate=3e-4)
  elif args.size == 'smollm2':
    common.smollm2(config, length=48, batch_size=16)
    config.init_from = 'runs/sft'
    config.role_from.reward = 'runs/reward'
    config.total_steps = 24
    config.data.heldout = 150
    # Most responses are cut: a penalty for that would be all of the reward.
    config.algorithm_kw.update(
      max_new_tokens=48, kl_coef=0.01, missing_eos_penalty=0.0, microbatches=4
    )
    config.optimizer.learning_rate = 2e-5
    config.evals.samples = 64
    config.evals.sampling.temperature = 1.0
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  config.role_from.reward = args.reward or config.role_from.reward
  return config
