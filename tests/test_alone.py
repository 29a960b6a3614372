"""Two processes in the directory of one run: the second waits."""

import fcntl
import signal
import subprocess
import sys
import threading

import pytest
import small_runs

from alignax import metrics
from alignax.alone import alone

HOLD = """
import sys
from alignax.alone import alone

with alone(sys.argv[1]):
  print('held', flush=True)
  sys.stdin.read()
"""


def holder(workdir):
  """Another process that trains there, as far as anyone can see."""
  command = [sys.executable, '-c', HOLD, str(workdir)]
  pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  process = subprocess.Popen(command, **pipes)
  assert process.stdout.readline() == 'held\n'
  return process


def test_the_second_waits_for_the_first(tmp_path, capsys):
  first, entered = holder(tmp_path), threading.Event()

  def second():
    with alone(tmp_path):
      entered.set()

  thread = threading.Thread(target=second)
  thread.start()
  assert not entered.wait(1)
  first.communicate('')
  assert entered.wait(30)
  thread.join()
  assert 'another process trains there; waiting' in capsys.readouterr().out


def test_a_killed_process_holds_nothing(tmp_path, capsys):
  first = holder(tmp_path)
  first.send_signal(signal.SIGKILL)
  first.communicate()
  with alone(tmp_path):
    assert 'waiting' not in capsys.readouterr().out


def test_a_file_system_without_locks_is_none_to_wait_for(tmp_path, monkeypatch):
  def flock(*_):
    raise OSError('no locks available')

  monkeypatch.setattr(fcntl, 'flock', flock)
  with alone(tmp_path), alone(tmp_path):
    pass


@pytest.mark.slow
@pytest.mark.serial
def test_a_run_that_another_process_trains_is_not_trained_at_once(tmp_path):
  small_runs.write_configs(tmp_path)
  workdir = tmp_path / 'run'
  workdir.mkdir()
  first = holder(workdir)
  threading.Timer(2, lambda: first.communicate('')).start()
  small_runs.train(tmp_path, 'sft', workdir)
  assert first.poll() is not None
  assert metrics.read(workdir)
