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
QUIET = {'evals.samples': 0, 'log.every': 10, 'log.tensorboard': False}
ASKED = {
  **QUIET,
  'data.heldout_path': HELDOUT,
  'data.heldout': 0,
  'evals.probes.every': 20,
  'evals.probes.prompts': 128,
}
# Pair losses with an algorithm of their own; none has a reference.
WITHOUT_REFERENCE = {
  'simpo': 'configs/simpo.py:size=tiny',
  'alphapo': 'configs/simpo.py:size=tiny,loss=alphapo',
  'orpo': 'configs/orpo.py:size=tiny',
  'cpo': 'configs/cpo.py:size=tiny',
}
MODEL = {'model.depth': 3, 'model.tie_embeddings': False}
PAIR_STEPS = {
  'data.batch_size': 12,  # Packed: some 35 pairs.
  'optimizer.learning_rate': 2e-4,
  'optimizer.warmup_steps': 5,
  'total_steps': 80,
}


def world(name: str, n: int, *, split: str = 'train', seed: int = 0, **kw):
  """The path of a set of the synthetic world."""
  more = ''.join(f'&{key}={value}' for key, value in kw.items())
  return f'synthetic:{name}?n={n}&seed={seed}&split={split}{more}'


@functools.cache
def pretrained():
  return sweeps.run(STAGE.format('pretrain'), name='pretrained')


@functools.cache
def sft():
  return sweeps.run(STAGE.format('sft'), name='sft')


def reward(n: int = 4000, *, name='reward', start=None, biased=(), **overrides):
  """A reward model of n comparisons, by default from the SFT model.

  `biased` is what its annotators are: {'length_bias': 0.4}. They also choose
  between the held-out responses.
  """
  made = lambda n, split: world('preferences', n, split=split, **dict(biased))
  data = {
    'data.path': made(n, 'train'),
    'data.heldout': 0,
    'data.heldout_path': made(256, 'heldout'),
  }
  return sweeps.run(
    STAGE.format('reward'), {**QUIET, **data, **overrides}, name=name,
    after=start or sft(),
  )  # fmt: skip


def pairs(loss: str, n: int = 4000, *, name: str = '', biased=(), **overrides):
  """A pair loss on n comparisons from the SFT model; `biased` as above."""
  config = f'configs/dpo.py:size=tiny,loss={loss}'
  config = WITHOUT_REFERENCE.get(loss, config)
  path = world('preferences', n, **dict(biased))
  start = {**MODEL, **PAIR_STEPS, **ASKED, 'data.path': path}
  return sweeps.run(
    config, {**start, **overrides}, name=name or loss, after=sft()
  )


def ppo(judge, *, name: str = 'ppo', **overrides):
  """PPO from the SFT model against a reward model."""
  return sweeps.run(
    STAGE.format('ppo'), {**ASKED, 'total_steps': 40, **overrides}, name=name,
    after={'init_from': sft(), 'role_from.reward': judge},
  )  # fmt: skip
