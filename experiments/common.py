"""What the experiments on the synthetic world share: a start, and measures.

Every experiment starts from the models of the quickstart, and most ask the same
instructions. Experiments that run in one `--workdir` train what they share
once: a run is known by a hash of its config.
"""

import functools

from alignax import sweeps

STAGE = 'configs/quickstart.py:stage={}'
# Instructions that no stage was trained on, and how they are asked.
HELDOUT = 'synthetic:preferences?n=128&seed=1&split=heldout'
ALL_LENGTHS = {'evals.samples': 0, 'log.every': 10, 'log.tensorboard': False}
ASKED = {
  **ALL_LENGTHS,
  'data.heldout_path': HELDOUT,
  'data.heldout': 0,
  'evals.probes.every': 20,
  'evals.probes.prompts': 128,
}


def world(name: str, n: int, *, split: str = 'train', seed: int = 0, **kw):
  """The path of a set of the synthetic world."""
  more = ''.join(f'&{key}={value}' for key, value in kw.items())
  return f'synthetic:{name}?n={n}&seed={seed}&split={split}{more}'


PAIRS = world('preferences', 4000)


@functools.cache
def pretrained():
  return sweeps.run(STAGE.format('pretrain'), name='pretrained')


@functools.cache
def sft():
  return sweeps.run(STAGE.format('sft'), name='sft')


def reward(path: str = PAIRS, *, name: str = 'reward', start=None, **overrides):
  """A reward model of some comparisons, that starts from the SFT model."""
  heldout = path.replace('split=train', 'split=heldout').split('n=')
  heldout = f'{heldout[0]}n=256&{heldout[1].split("&", 1)[1]}'
  data = {'data.path': path, 'data.heldout': 0, 'data.heldout_path': heldout}
  return sweeps.run(
    STAGE.format('reward'), {**ALL_LENGTHS, **data, **overrides}, name=name,
    after=start or sft(),
  )  # fmt: skip


def pairs(loss: str, path: str = PAIRS, *, name: str = '', **overrides):
  """A pair loss, of `configs/dpo.py` or with an algorithm of its own."""
  config = f'configs/dpo.py:size=tiny,loss={loss}'
  if loss in WITHOUT_REFERENCE:
    config = f'configs/{loss}.py:size=tiny'
  start = {**MODEL, **PAIR_STEPS, **ASKED, 'data.path': path}
  return sweeps.run(
    config, {**start, **overrides}, name=name or loss, after=sft()
  )


def ppo(judge, *, name: str = 'ppo', **overrides):
  """PPO from the SFT model against a reward model."""
  return sweeps.run(
    STAGE.format('ppo'), {**ASKED, **overrides}, name=name,
    after={'init_from': sft(), 'role_from.reward': judge},
  )  # fmt: skip


# Pair losses with an algorithm of their own; none has a reference.
WITHOUT_REFERENCE = ('simpo', 'orpo', 'cpo')
MODEL = {'model.depth': 3, 'model.tie_embeddings': False}
PAIR_STEPS = {
  'data.batch_size': 12,  # Packed: some 35 pairs.
  'optimizer.learning_rate': 2e-4,
  'optimizer.warmup_steps': 5,
  'total_steps': 80,
}
