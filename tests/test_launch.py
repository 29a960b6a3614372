"""Scripts that start training, with something else in its place."""

import os
import pathlib
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parents[1] / 'launch'


def launch(script: str, **environment) -> str:
  result = subprocess.run(
    ['bash', LAUNCH / script, 'some.py:a=1', 'work dir', '--config.seed=3'],
    env=os.environ | environment,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert result.returncode == 0, result.stderr
  return result.stdout


@pytest.fixture
def show(tmp_path, monkeypatch):
  """A command that prints its arguments, and a stand-in for srun."""
  (tmp_path / 'show').write_text('#!/usr/bin/env bash\nprintf "<%s>" "$@"\n')
  (tmp_path / 'srun').write_text('#!/usr/bin/env bash\nshift\nexec "$@"\n')
  for name in ('show', 'srun'):
    (tmp_path / name).chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
  monkeypatch.setenv('SLURM_SUBMIT_DIR', str(tmp_path))
  return 'show exec alignax.sif alignax'


ARGUMENTS = '<--config=some.py:a=1><--workdir=work dir><--config.seed=3>'
CONTAINER = '<exec><alignax.sif><alignax><train>'


def test_one_process_may_be_in_a_container(show):
  found = launch('local.sh', ALIGNAX=show, PROCESSES='1')
  assert found == CONTAINER + ARGUMENTS


def test_so_may_several(show):
  found = launch('local.sh', ALIGNAX=show, PROCESSES='2')
  assert found == 2 * f'{CONTAINER}<--distributed>{ARGUMENTS}'


def test_so_may_those_of_a_cluster(show):
  found = launch('gpu_cluster.sh', ALIGNAX=show)
  assert found == f'{CONTAINER}<--distributed>{ARGUMENTS}'
