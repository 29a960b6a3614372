"""Two runs so small that training them takes seconds."""

import pytest

from alignax.cli import main

SMALL = (
  '--config.data.batch_size=8',
  '--config.total_steps=3',
  '--config.checkpoint.every=2',
  '--config.evals.samples=4',
  '--config.evals.sampling.max_new_tokens=4',
  '--config.log.tensorboard=False',
)
TINY_MODEL = (
  '--config.model.width=16',
  '--config.model.mlp_width=16',
  '--config.model.depth=2',
  '--config.model.num_heads=2',
  '--config.model.num_kv_heads=2',
  '--config.model.head_dim=8',
)


def world(name, n=24):
  path = f'synthetic:{name}?n={n}&split=train'
  heldout = f'synthetic:{name}?n={n}&seed=1&split=heldout'
  return f'--config.data.path={path}', f'--config.data.heldout_path={heldout}'


@pytest.fixture(scope='session')
def sft(tmp_path_factory):
  """A run, and the options that it was trained with."""
  workdir = tmp_path_factory.mktemp('runs') / 'sft'
  options = (
    '--config=configs/sft.py:size=tiny', f'--workdir={workdir}',
    *SMALL, *TINY_MODEL, *world('demonstrations'),
  )  # fmt: skip
  assert main(['train', *options]) == 0
  return workdir, options


@pytest.fixture(scope='session')
def dpo(sft):
  """A run from that run."""
  workdir = sft[0].parent / 'dpo'
  options = (
    '--config=configs/dpo.py:size=tiny', f'--workdir={workdir}',
    *SMALL, *TINY_MODEL, *world('preferences'), f'--config.init_from={sft[0]}',
  )  # fmt: skip
  assert main(['train', *options]) == 0
  return workdir, options


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch, request):
  """Configs are named as seen from the root of the repository."""
  monkeypatch.chdir(request.config.rootpath)
