"""Runs as small as they come, of configs that are written for them."""

import pathlib

from alignax import metrics, run
from alignax.cli import configs

ROOT = pathlib.Path(__file__).parent.parent
SMALL = """
import pathlib, sys
sys.path[:0] = [{root!r}]
from configs import {name}

def get_config(arg=None):
  config = {name}.get_config('size=tiny')
  config.total_steps = 6
  config.init_from, config.role_from.reward = '', ''
  config.model.update(
    width=16, depth=1, num_heads=2, num_kv_heads=2, head_dim=8, mlp_width=16,
    remat='none',
  )
  world = 'synthetic:{data}?n={{}}&seed=0&split={{}}'
  config.data.update(
    path=world.format(64, 'train'), heldout_path=world.format(8, 'heldout'),
    batch_size=8, packing=False,
  )
  config.evals.update(every=3, samples=2)
  config.evals.sampling.max_new_tokens = 4
  config.optimizer.learning_rate = 1e-2
  {more}
  return config
"""
DATA = {
  'sft': 'demonstrations', 'dpo': 'preferences', 'reward': 'preferences',
  'ppo': 'prompts',
}  # fmt: skip
PPO = 'config.algorithm_kw.update(max_new_tokens=4, epochs=2, target_kl=0.01)'


def write_configs(folder: pathlib.Path):
  """A config of every algorithm, as small_NAME.py."""
  for name, data in DATA.items():
    text = SMALL.format(
      root=str(ROOT), name=name, data=data, more=PPO if name == 'ppo' else ''
    )
    (folder / f'small_{name}.py').write_text(text)


def load(home, name, **overrides):
  """A config with 'data.batch_size': 4 and the like changed."""
  config = configs.load(str(home / f'small_{name}.py'))
  with config.unlocked():
    config.update_from_flattened_dict(overrides)
  return config


def train(home, name, workdir, **overrides):
  config = load(home, name, **overrides)
  return run.train(config, workdir, load_config=configs.load)


def lines(workdir, *, but=('seconds',)):
  rows = metrics.read(workdir)
  return [{k: v for k, v in row.items() if k not in but} for row in rows]


def losses(workdir, name='loss'):
  return [row[name] for row in lines(workdir) if name in row]
