"""Runs that are killed, or asked to stop, and go on bit by bit."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from small_runs import ROOT, lines

from alignax import checkpoint


def command(home, name, workdir, *more):
  return [
    sys.executable, '-m', 'alignax.cli', 'train',
    f'--config={home / f"small_{name}.py"}', f'--workdir={workdir}',
    '--config.total_steps=30', '--config.checkpoint.every=3',
    '--config.evals.every=10', *more,
  ]  # fmt: skip


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
  """One device, and compiled programs kept from one process to the next."""
  return os.environ | {
    'XLA_FLAGS': '--xla_backend_optimization_level=0',
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path_factory.mktemp('xla')),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    'PYTHONPATH': str(ROOT),
  }


def steps(workdir):
  path = workdir / 'metrics.jsonl'
  return path.read_text().count('"loss"') if path.exists() else 0


def saving(workdir):
  """Whether a checkpoint is being written at this moment."""
  path = workdir / 'checkpoints'
  return path.exists() and any('tmp' in name for name in os.listdir(path))


def interrupt(argv, environment, when, number):
  """Starts a command, sends a signal once `when()` holds; (rc, output)."""
  with subprocess.Popen(
    argv, env=environment, cwd=ROOT, text=True,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  ) as process:  # fmt: skip
    end = time.monotonic() + 300
    while process.poll() is None and not when():
      assert time.monotonic() < end, 'It never came to the moment to stop it.'
      time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
      process.send_signal(number)
    output = process.communicate(timeout=300)[0]
  return process.returncode, output


def finish(argv, environment):
  result = subprocess.run(
    argv, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600
  )
  assert result.returncode == 0, result.stdout + result.stderr


def kill_again_and_again(argv, environment, workdir):
  """Kills a run at several moments; returns which of them hit a save.

  Before the first checkpoint, in a save, asked nicely, and in a save again.
  """
  hits = []
  kill = lambda when: interrupt(argv, environment, when, signal.SIGKILL)
  code, _ = kill(lambda: steps(workdir) >= 1)
  assert code == -signal.SIGKILL
  assert kill(lambda: saving(workdir))[0] == -signal.SIGKILL
  hits.append(saving(workdir))
  code, output = interrupt(
    argv, environment, lambda: steps(workdir) >= 8, signal.SIGTERM
  )
  assert code == 0 and 'Stopped at step' in output, output
  saved = checkpoint.latest_step(workdir / 'checkpoints')
  assert f'Stopped at step {saved} of 30' in output
  kill(lambda: steps(workdir) > saved and saving(workdir))
  hits.append(saving(workdir))
  return hits


@pytest.mark.slow
@pytest.mark.serial
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
  home, environment, tmp_path
):
  noise = '--config.algorithm_kw.neftune=5.0'  # So keys have to be right, too.
  once = command(home, 'sft', tmp_path / 'once', noise)
  finish(once, environment)
  again = command(home, 'sft', tmp_path / 'again', noise)
  hits = kill_again_and_again(again, environment, tmp_path / 'again')
  finish(again, environment)
  assert lines(tmp_path / 'again') == lines(tmp_path / 'once')
  samples = lambda name: (tmp_path / name / 'samples.jsonl').read_text()
  assert samples('again') == samples('once')
  assert any(hits), 'No kill fell into a save: the test shows less than it says'
  one, two = (
    checkpoint.load_role(tmp_path / name / 'checkpoints', 'policy')
    for name in ('once', 'again')
  )
  jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.slow
@pytest.mark.serial
def test_a_killed_ppo_run_too(home, environment, tmp_path):
  """With several epochs, an adaptive coefficient, and what it samples."""
  finish(command(home, 'reward', tmp_path / 'reward'), environment)
  finish(command(home, 'sft', tmp_path / 'sft'), environment)
  more = (
    f'--config.init_from={tmp_path / "sft"}',
    f'--config.role_from.reward={tmp_path / "reward"}',
    '--config.algorithm_kw.minibatches=2',
  )
  once = command(home, 'ppo', tmp_path / 'once', *more)
  finish(once, environment)
  again = command(home, 'ppo', tmp_path / 'again', *more)
  kill_again_and_again(again, environment, tmp_path / 'again')
  finish(again, environment)
  rows = lines(tmp_path / 'once')
  assert lines(tmp_path / 'again') == rows
  assert len({row['kl_coef'] for row in rows if 'kl_coef' in row}) > 5
