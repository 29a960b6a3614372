r"""The stages of `make quickstart`, each a config like any other.

  alignax train --config=configs/quickstart.py:stage=sft --workdir=runs/q/sft

Each stage starts from the ones before it, which are run first if need be:
pretrain -> sft -> reward -> ppo, and sft -> dpo.
"""

from configs import common, dpo, ppo, reward, sft

STAGES = ('pretrain', 'sft', 'reward', 'dpo', 'ppo')


def get_config(arg=None):
  args = common.parse_arg(arg, size='tiny', stage='ppo', seed=0)
  common.check_choice('stage', args.stage, STAGES)
  common.check_choice('size', args.size, ('tiny',))  # There is no other.
  config = MAKERS[args.stage](args.seed)
  config.seed = args.seed
  config.evals.samples = 0  # The quickstart draws its own, of all stages.
  config.log.tensorboard = False
  if config.init_from:  # Its architecture is that of the pretrained model.
    config.model = dict(dtype='float32', remat='attention')
  return config


def before(stage: str, seed: int) -> str:
  return f'configs/quickstart.py:stage={stage},seed={seed}'


def world(name: str, n: int, seed: int, split: str = 'train') -> str:
  return f'synthetic:{name}?n={n}&seed={seed}&split={split}'


def pretrain(seed):
  """Raw text, in which a question is mostly followed by more questions."""
  config = sft.get_config('size=tiny')
  config.total_steps = 800
  config.data.update(
    path=world('text', 25600, seed), heldout_path='', heldout=0,
    packing=False, batch_size=32,
  )  # fmt: skip
  config.optimizer.update(
    name='muon', learning_rate=6e-3, warmup_steps=20, schedule='linear'
  )
  return config


def demonstrations(seed):
  """1,000 demonstrations, of mixed quality, as people write them."""
  config = sft.get_config('size=tiny')
  config.init_from = before('pretrain', seed)
  config.total_steps = 160
  config.data.update(
    path=world('demonstrations', 1000, seed),
    heldout_path=world('demonstrations', 128, seed + 1, 'heldout'),
    batch_size=12,  # Packed: some 40 conversations.
  )
  config.optimizer.update(name='adamw', learning_rate=1e-3, warmup_steps=5)
  return config


def comparisons(seed):
  """A reward model of the annotators' choices."""
  config = reward.get_config('size=tiny')
  config.init_from = before('sft', seed)
  config.total_steps = 100
  config.data.update(
    path=world('preferences', 4000, seed),
    heldout_path='',
    heldout=256,
    batch_size=12,  # Packed: some 35 pairs.
  )
  config.optimizer.update(name='adamw', learning_rate=3e-4, warmup_steps=5)
  return config


def preferences(seed):
  """DPO on the same choices."""
  config = dpo.get_config('size=tiny')
  config.init_from = before('sft', seed)
  config.total_steps = 80
  config.data.update(
    path=world('preferences', 4000, seed),
    heldout_path='',
    heldout=256,
    batch_size=12,  # Packed: some 35 pairs.
  )
  config.optimizer.update(learning_rate=2e-4, warmup_steps=5)
  return config


def reinforcement(seed):
  """PPO against the reward model."""
  config = ppo.get_config('size=tiny')
  config.init_from = before('sft', seed)
  config.role_from.reward = before('reward', seed)
  config.total_steps = 24
  config.data.update(
    path=world('prompts', 4000, seed + 2), heldout_path='', length=32,
    batch_size=64,
  )  # fmt: skip
  config.algorithm_kw.update(
    max_new_tokens=24, kl_coef=0.1, minibatches=2, epochs=1
  )
  config.optimizer.update(learning_rate=2e-4)
  return config


MAKERS = {
  'pretrain': pretrain,
  'sft': demonstrations,
  'reward': comparisons,
  'dpo': preferences,
  'ppo': reinforcement,
}
