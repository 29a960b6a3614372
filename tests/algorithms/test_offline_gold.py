"""What offline algorithms learn is worth something: the gold score rises.

Each goes on from a run of SFT on mixed demonstrations, by its config at
`size=tiny`; samples to held-out prompts are scored by the rules of the
synthetic world, which no algorithm sees.
"""

import pytest

from alignax import metrics, run
from alignax.cli import configs

pytestmark = pytest.mark.slow

SOURCES = (
  'kto.py', 'kto.py:loss=bco', 'kto.py:loss=apo_zero_unpaired', 'ipo.py',
  'simpo.py', 'simpo.py:loss=alphapo', 'orpo.py', 'cpo.py', 'tpo.py',
)  # fmt: skip


def load(source):
  """A config at its tiny size, with samples enough to tell."""
  config = configs.load(f'configs/{source}')
  with config.unlocked():
    path = config.data.heldout_path
    config.data.heldout_path = path.replace('n=64', 'n=256')
    config.evals.samples = 256
    config.evals.sampling.temperature = 1.0
    config.log.tensorboard = False
  return config


def scores(config, workdir):
  """The mean score of the samples before and after."""
  run.train(config, workdir, load_config=configs.load)
  rows = metrics.read(workdir)
  found = [row['samples/total'] for row in rows if 'samples/total' in row]
  return found[0], found[-1]


@pytest.fixture(scope='module')
def tuned(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('sft')
  before, after = scores(load('sft.py'), workdir)
  assert before < 0.05 and after > 0.1
  return str(workdir)


@pytest.mark.parametrize('source', SOURCES)
def test_it_rises_from_what_people_prefer(source, tuned, tmp_path):
  config = load(source)
  config.init_from = tuned
  before, after = scores(config, tmp_path)
  assert after > before + 0.03


@pytest.mark.parametrize('arg', ['', 'loss=generalized_jsd,on_policy=0.5'])
def test_a_student_learns_from_its_teacher(tuned, tmp_path, arg):
  config = load(f'distill.py:{arg}')
  config.role_from.teacher = tuned
  before, after = scores(config, tmp_path)
  assert before < 0.05 and after > 0.06


def test_told_the_best_class_the_model_answers_well(tmp_path):
  before, after = scores(load('c_rlft.py'), tmp_path)
  assert before < 0.05 and after > 0.1


def test_tool_calls_are_learned(tmp_path):
  before, after = scores(load('sft.py:world=tools'), tmp_path)
  assert before < 0.05 and after > 0.1
