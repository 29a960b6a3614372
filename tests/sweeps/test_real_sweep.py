"""A sweep that trains, by the command that anyone would start runs with."""

import json
import pathlib
import shutil

import pytest
import small_runs

from alignax.cli import main
from alignax.sweeps import plan, state

TWO = """
from alignax import sweeps

def get_sweep():
  few = {'total_steps': 2, 'evals.every': 0, 'log.tensorboard': False}
  sft = sweeps.run('small_sft.py', few, name='sft')
  return sweeps.seeds(sweeps.run('small_dpo.py', few, name='dpo', after=sft), 2)
"""


def written(directory) -> dict[pathlib.Path, int]:
  """When each file of a run was written."""
  files = (p for p in directory.rglob('*') if p.is_file())
  return {p: p.stat().st_mtime_ns for p in files}


@pytest.mark.slow
@pytest.mark.serial
def test_two_runs_share_a_stage_and_none_is_repeated(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.delenv('ALIGNAX', raising=False)
  monkeypatch.setenv('PYTHONPATH', str(small_runs.ROOT))
  small_runs.write_configs(tmp_path)
  pathlib.Path('sweep.py').write_text(TWO)
  args = ['sweep', '--sweep=sweep.py', '--workdir=out', '--jobs=1']

  assert main(args) == 0
  folders = {r.name: r.directory('out') for r in plan.load('out')}
  assert folders.keys() == {'sft', 'dpo seed=0', 'dpo seed=1'}
  for folder in folders.values():
    status = state.read(folder, 2)
    assert (status.state, status.attempts) == (state.DONE, 1)
  for seed in range(2):
    config = (folders[f'dpo seed={seed}'] / 'config.json').read_text()
    assert json.loads(config)['init_from'] == str(folders['sft'])

  before = {name: written(folder) for name, folder in folders.items()}
  assert main(args) == 0
  assert {name: written(f) for name, f in folders.items()} == before

  shutil.rmtree(folders['dpo seed=1'] / 'checkpoints' / '2')
  assert main(args) == 0
  after = {name: written(folder) for name, folder in folders.items()}
  again = folders['dpo seed=1']
  assert state.read(again, 2)[:3] == (state.DONE, '', 2)
  assert (again / 'checkpoints' / '2').is_dir()
  assert [name for name in folders if after[name] != before[name]] == [
    'dpo seed=1'
  ]
