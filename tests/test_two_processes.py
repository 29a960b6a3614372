"""A run on two processes, as on two hosts: one model, one set of files."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from small_runs import ROOT, lines, losses, write_configs

from alignax import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.serial]
LIMIT = 400  # Seconds.


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
  return {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'} | {
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path_factory.mktemp('xla')),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
    'PYTHONPATH': str(ROOT),
  }


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  folder = tmp_path_factory.mktemp('home')
  write_configs(folder)
  return folder


def command(home, name, workdir, *more):
  return [
    sys.executable, '-m', 'alignax.cli', 'train', f'--workdir={workdir}',
    f'--config={home / f"small_{name}.py"}', '--config.checkpoint.every=2',
    *more,
  ]  # fmt: skip


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


@contextlib.contextmanager
def both(argv, environment, folder):
  """Two processes of one run; their output goes to files."""
  where = {
    'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{free_port()}',
    'ALIGNAX_NUM_PROCESSES': '2',
  }
  started = []
  for i in range(2):
    log = (folder / f'log{i}').open('w')
    started.append(
      subprocess.Popen(
        [*argv, '--distributed'], cwd=ROOT, stdout=log, stderr=log,
        env=environment | where | {'ALIGNAX_PROCESS_ID': str(i)},
      )
    )  # fmt: skip
  try:
    yield started
  finally:
    for process in started:
      process.kill()


def output(folder) -> str:
  return '\n'.join((folder / f'log{i}').read_text()[-3000:] for i in range(2))


def finish(argv, environment, folder):
  with both(argv, environment, folder) as started:
    codes = [process.wait(LIMIT) for process in started]
  assert codes == [0, 0], output(folder)


def alone(argv, environment):
  """The same on two devices of one process."""
  flags = {'XLA_FLAGS': '--xla_force_host_platform_device_count=2'}
  subprocess.run(argv, cwd=ROOT, env=environment | flags, check=True)


@pytest.mark.parametrize('name', ['sft', 'dpo', 'ppo'])
def test_two_processes_do_what_one_does(name, home, environment, tmp_path):
  more = []
  if name == 'ppo':  # What it starts from is made by one process.
    for role in ('sft', 'reward'):
      start = command(home, role, tmp_path / role, '--config.total_steps=1')
      alone(start, environment)
    more = [
      f'--config.init_from={tmp_path / "sft"}',
      f'--config.role_from.reward={tmp_path / "reward"}',
    ]
  if name == 'dpo':
    more = ['--config.data.precompute_ref=True']
  finish(command(home, name, tmp_path / 'two', *more), environment, tmp_path)
  alone(command(home, name, tmp_path / 'one', *more), environment)
  for metric in ('loss', 'heldout/loss'):
    found = losses(tmp_path / 'two', metric)
    want = losses(tmp_path / 'one', metric)
    assert found == pytest.approx(want, abs=2e-5)
  assert checkpoint.latest_step(tmp_path / 'two' / 'checkpoints') == 6
  # Only the first of them writes, and nothing twice.
  steps = [row['step'] for row in lines(tmp_path / 'two') if 'loss' in row]
  assert steps == [1, 2, 3, 4, 5, 6]


def test_a_signal_to_one_stops_both_at_one_step(home, environment, tmp_path):
  argv = command(
    home, 'sft', tmp_path / 'run', '--config.total_steps=3000',
    '--config.evals.every=0', '--config.checkpoint.every=0',
  )  # fmt: skip
  with both(argv, environment, tmp_path) as started:
    end = time.monotonic() + LIMIT
    while len(losses(tmp_path / 'run')) < 3:
      assert time.monotonic() < end, output(tmp_path)
      assert all(process.poll() is None for process in started), output(
        tmp_path
      )
      time.sleep(0.05)
    started[1].send_signal(signal.SIGTERM)
    codes = [process.wait(LIMIT) for process in started]
  assert codes == [0, 0], output(tmp_path)
  step = checkpoint.latest_step(tmp_path / 'run' / 'checkpoints')
  for i in range(2):
    assert (
      f'Stopped at step {step} of 3000' in (tmp_path / f'log{i}').read_text()
    )
