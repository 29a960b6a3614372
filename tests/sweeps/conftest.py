"""Runs that train nothing: what is tested is who runs when, and how often."""

import shlex
import sys

import pytest

from alignax.sweeps import plan

CONFIG = """
import ml_collections

def get_config(arg=None):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_steps = 4
  config.algorithm = f'alignax.algorithms.{arg or "dpo"}'
  config.algorithm_kw = dict(beta=0.1, loss='dpo', behave='')
  config.init_from = ''
  config.role_from = dict(ref='', value='', reward='')
  config.data = dict(path='synthetic:preferences?n=8')
  return config
"""
# Trains a step at a time, and keeps a checkpoint of each, as a folder.
FAKE = """
import json, os, pathlib, signal, sys, time
options = dict(item.split('=', 1) for item in sys.argv[2:])
work = pathlib.Path(options['--workdir'])
behave = options.get('--config.algorithm_kw.behave', '')
total = int(options.get('--config.total_steps', 4))
stage = options.get('--config.init_from')
assert not stage or (pathlib.Path(stage) / 'checkpoints').is_dir(), stage
checkpoints = work / 'checkpoints'
checkpoints.mkdir(exist_ok=True)
config = {k[9:]: v for k, v in options.items() if k.startswith('--config.')}
seed = int(config.get('seed', 0))
beta = float(config.get('algorithm_kw.beta', 0.1))
(work / 'config.json').write_text(json.dumps(
  {'total_steps': total, 'algorithm': 'alignax.algorithms.dpo', 'seed': seed,
   'init_from': stage or '', 'algorithm_kw': {'behave': behave,
     'beta': beta, 'loss': config.get('algorithm_kw.loss', 'dpo')}}))
start = max([int(p.name) for p in checkpoints.iterdir()], default=0)
with (work / 'starts').open('a') as file:
  file.write(f'{start} {sorted(os.sched_getaffinity(0))}\\n')
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
for step in range(start + 1, total + 1):
  if behave == 'slow':
    time.sleep(0.3)
  with (work / 'metrics.jsonl').open('a') as file:
    line = {'step': step, 'seconds': step / 10.0}
    if not behave:
      line |= {'samples/kl': step / 10 / beta,
               'samples/total': 0.5 + step / 100 + seed / 1000}
    file.write(json.dumps(line) + '\\n')
  (checkpoints / str(step)).mkdir()
  if step == 2 and start == 0:
    if behave == 'kill':
      os.kill(os.getpid(), signal.SIGKILL)
    if behave == 'fail':
      print('dpo:  50%|#####     | 2/4', file=sys.stderr)
      raise ValueError('the loss\\nwas not finite')
  if stopped:
    print(f'Stopped at step {step}')
    sys.exit(0)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A folder with a config, where training is pretended."""
  (tmp_path / 'small.py').write_text(CONFIG)
  (tmp_path / 'fake.py').write_text(FAKE)
  monkeypatch.chdir(tmp_path)
  fake = [sys.executable, '-S', '-E', str(tmp_path / 'fake.py')]
  monkeypatch.setenv('ALIGNAX', shlex.join(fake))
  return tmp_path


@pytest.fixture
def write_sweep(home):
  """Writes a sweep file; returns the arguments of `alignax sweep`."""

  def write(body: str):
    lines = ['from alignax import sweeps', 'def get_sweep():']
    lines += [f'  {line}' for line in body.strip().splitlines()]
    (home / 'sweep.py').write_text('\n'.join(lines) + '\n')
    return ['sweep', '--sweep=sweep.py', f'--workdir={home / "out"}']

  return write


@pytest.fixture
def runs_of(home):
  """The runs of the sweep, by name, with how often each was started."""

  def read():
    found = {}
    for run in plan.load(home / 'out'):
      starts = run.directory(home / 'out') / 'starts'
      lines = starts.read_text().splitlines() if starts.exists() else []
      found[run.name] = run, lines
    return found

  return read
