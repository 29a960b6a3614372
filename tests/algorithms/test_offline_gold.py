"""What offline algorithms learn is worth something: the gold score rises.

A small model is tuned on mixed demonstrations of a few easy families; each
algorithm goes on from there, and its samples to held-out prompts are scored by
the rules of the synthetic world, which no algorithm sees.
"""

import pytest

from alignax import metrics, run
from alignax.cli import configs

pytestmark = pytest.mark.slow

TASKS = 'copy,first,last,next'
# Config -> what differs from its tiny size.
CASES = {
  'kto.py': {'data.batch_size': 16},
  'kto.py:loss=bco': {'data.batch_size': 16},
  'kto.py:loss=apo_zero_unpaired': {'data.batch_size': 16},
  'ipo.py': {},
  'simpo.py': {},
  'simpo.py:loss=alphapo': {},
  'orpo.py': {},
  'cpo.py': {},
  'tpo.py': {},
}
RISE = 0.05


def world(name, n, seed, split='train', more=''):
  path = f'synthetic:{name}?n={n}&seed={seed}&split={split}{more}'
  return f'{path}&tasks={TASKS}'


def small(source, name, **changes):
  """A config at its tiny size, with a smaller model and easy tasks."""
  config = configs.load(f'configs/{source}')
  with config.unlocked():
    config.data.update(
      path=world(name, 2000, 0), heldout_path=world(name, 256, 1, 'heldout'),
      batch_size=8,
    )  # fmt: skip
    config.evals.update(samples=256)
    config.evals.sampling.update(temperature=1.0, max_new_tokens=16)
    config.log.tensorboard = False
    for key, value in changes.items():
      section, _, last = key.rpartition('.')
      (config[section] if section else config)[last] = value
  return config


def fresh(source, name, **changes):
  config = small(source, name, **changes)
  with config.unlocked():
    config.model.update(
      width=64, depth=2, num_heads=4, num_kv_heads=4, head_dim=16,
      mlp_width=192, remat='none',
    )  # fmt: skip
  return config


def scores(config, workdir, **kw):
  """The gold score before and after."""
  run.train(config, workdir, **kw)
  rows = metrics.read(workdir)
  found = [row['samples/total'] for row in rows if 'samples/total' in row]
  print(config.algorithm, config.algorithm_kw.get('loss', ''), found)
  return found[0], found[-1]


@pytest.fixture(scope='module')
def tuned(tmp_path_factory):
  """A run of SFT on mixed demonstrations."""
  workdir = tmp_path_factory.mktemp('sft')
  config = fresh('sft.py', 'demonstrations', total_steps=200)
  before, after = scores(config, workdir)
  assert before < 0.1 and after > 0.3
  return workdir


@pytest.mark.parametrize('source', CASES)
def test_it_rises_from_preferences(source, tuned, tmp_path):
  kind = source.split('.')[0]
  data = {'kto': 'unpaired', 'tpo': 'rankings'}.get(kind, 'preferences')
  config = small(source, data, init_from=str(tuned), **CASES[source])
  before, after = scores(config, tmp_path)
  assert after > before + RISE


def test_classes_are_told_apart(tmp_path):
  """Told the best class, the model answers better than by plain imitation."""
  config = fresh('c_rlft.py', 'classes', total_steps=200)
  config.data.heldout_path = world('classes', 256, 1, 'heldout', '&experts=1')
  before, best = scores(config, tmp_path / 'best')
  assert before < 0.1 and best > 0.3


@pytest.mark.parametrize('on_policy', [0.0, 0.5])
def test_a_student_comes_close_to_its_teacher(tuned, tmp_path, on_policy):
  config = fresh(
    f'distill.py:on_policy={on_policy}', 'demonstrations', total_steps=100
  )
  config.role_from.teacher = str(tuned)
  before, after = scores(config, tmp_path)
  assert after > before + RISE


def test_tool_calls_are_learned(tmp_path):
  config = fresh('sft.py:world=tools', 'tools', total_steps=150)
  before, after = scores(config, tmp_path)
  assert before < 0.05 and after > 0.3
