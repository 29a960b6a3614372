"""Sweeps on this machine: nothing twice, and one failure stops no other."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from alignax.cli import main
from alignax.sweeps import execute, local, plan, schedule, state

CHAIN = """
sft = sweeps.run('small.py:sft', name='sft')
dpo = sweeps.run('small.py:dpo', name='dpo', after=sft)
return sweeps.grid(dpo, {'algorithm_kw.beta': [0.1, 0.2, 0.3]})
"""
MIXED = """
run = lambda behave: sweeps.run(
  'small.py', {'algorithm_kw.behave': behave}, name=behave)
after = sweeps.run('small.py:sft', name='late', after=run('fail'))
return [run('fail'), run('kill'), run('good'), after]
"""


def test_every_run_once_and_the_second_time_none(write_sweep, runs_of, capsys):
  args = [*write_sweep(CHAIN), '--jobs=2']
  assert main(args) == 0
  first = runs_of()
  assert [len(starts) for _, starts in first.values()] == [1, 1, 1, 1]
  assert '4 of 4 runs are done' in capsys.readouterr().out
  assert main(args) == 0
  assert runs_of() == first
  assert 'Nothing is left to run' in capsys.readouterr().out


def test_more_runs_in_the_file_repeat_nothing(write_sweep, runs_of):
  assert main(write_sweep(CHAIN)) == 0
  before = runs_of()
  longer = CHAIN.replace('0.3]', '0.3, 0.4]').replace("'dpo',", "'new name',")
  assert main(write_sweep(longer)) == 0
  starts = {run.id: lines for run, lines in runs_of().values()}
  assert len(starts) == 5
  assert all(len(lines) == 1 for lines in starts.values())
  assert {run.id for run, _ in before.values()} < starts.keys()


def test_what_dies_is_listed_and_stops_no_other(write_sweep, runs_of, capsys):
  assert main([*write_sweep(MIXED), '--jobs=2']) == 1
  out = capsys.readouterr().out
  assert 'fail: failed: ValueError: the loss\nwas not finite' in out
  assert 'kill: killed: killed by SIGKILL' in out
  assert "late: blocked: it starts from 'fail', which is failed" in out
  assert '1 of 4 runs are done' in out
  (command,) = [
    line for line in out.splitlines()
    if line.startswith('  alone: ') and 'behave=fail' in line
  ]  # fmt: skip
  run = runs_of()['fail'][0]
  assert 'alignax train --config=small.py --workdir=' in command
  assert command.endswith(' --config.algorithm_kw.behave=fail')
  assert str(run.directory(os.path.abspath('out'))) in command


def test_what_never_came_to_be_is_failed_as_well(
  write_sweep, runs_of, monkeypatch
):
  monkeypatch.setenv('ALIGNAX', '/nowhere/alignax')
  assert main(write_sweep(MIXED)) == 1
  status = state.read(runs_of()['good'][0].directory('out'), 1)
  assert status.state == state.FAILED and '/nowhere/alignax' in status.error


def test_what_broke_goes_on_from_its_checkpoint(write_sweep, runs_of):
  args = write_sweep(MIXED)
  main(args)
  assert main(args) == 1  # The error would come again, so it is left alone.
  starts = {
    name: [s.split()[0] for s in v] for name, (_, v) in runs_of().items()
  }
  assert starts == {
    'fail': ['0'],
    'kill': ['0', '2'],
    'good': ['0'],
    'late': [],
  }
  assert main([*args, '--resume']) == 0
  assert [s.split()[0] for s in runs_of()['fail'][1]] == ['0', '2']
  assert len(runs_of()['late'][1]) == 1


def test_duplicates_are_named(write_sweep, runs_of, capsys):
  body = "return [sweeps.run('small.py', name=n) for n in ('a', 'b')]"
  assert main(write_sweep(body)) == 0
  assert "'b' has the config of 'a': run once" in capsys.readouterr().out
  assert [len(starts) for _, starts in runs_of().values()] == [1]


def test_jobs_run_at_once_on_cores_of_their_own(write_sweep, runs_of):
  body = """
return sweeps.grid(sweeps.run('small.py', {'algorithm_kw.behave': 'slow'}),
                   {'seed': [0, 1]})
"""
  mine = sorted(os.sched_getaffinity(0))
  if len(mine) < 2:
    pytest.skip('needs two cores')
  began = time.monotonic()
  assert main([*write_sweep(body), '--jobs=2']) == 0
  assert time.monotonic() - began < 2 * 4 * 0.3
  (a,), (b,) = (starts for _, starts in runs_of().values())
  cores = [set(eval(line.split(' ', 1)[1])) for line in (a, b)]
  assert not cores[0] & cores[1]
  assert cores[0] | cores[1] == set(mine)


def test_a_stopped_sweep_stops_its_runs_and_goes_on_later(write_sweep, runs_of):
  body = "return [sweeps.run('small.py', {'algorithm_kw.behave': 'slow'})]"
  args = write_sweep(body)
  timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
  timer.start()
  assert main(args) == 1
  ((run, starts),) = runs_of().values()
  status = state.read(run.directory('out'), run.total_steps)
  assert status.state == state.STOPPED and len(starts) == 1
  assert main(args) == 0
  ((_, starts),) = runs_of().values()
  assert len(starts) == 2 and int(starts[1].split()[0]) > 0


def test_one_command_at_a_time(write_sweep, home, capsys):
  assert main(write_sweep("return [sweeps.run('small.py')]")) == 0
  before = (home / 'out' / 'sweep.json').read_text()
  args = write_sweep("return [sweeps.run('small.py', {'seed': 1})]")
  holder = subprocess.Popen(
    [sys.executable, '-S', '-c', 'import fcntl, sys; f = open("out/lock", "w");'
     'fcntl.flock(f, fcntl.LOCK_EX); print("held", flush=True);'
     'sys.stdin.read()'],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
  )  # fmt: skip
  holder.stdout.readline()
  assert main(args) == 1
  assert 'Another alignax sweep is at work' in capsys.readouterr().err
  # The plan is still that of the one at work.
  assert (home / 'out' / 'sweep.json').read_text() == before
  holder.communicate()
  assert main(args) == 0
  assert (home / 'out' / 'sweep.json').read_text() != before


def test_a_run_whose_machine_died_is_known(write_sweep, runs_of, home):
  """It says that it is running, and nobody holds its lock."""
  args = write_sweep(CHAIN)
  assert main(args) == 0
  run = runs_of()['sft'][0]
  directory = run.directory(home / 'out')
  (directory / 'checkpoints' / '4').rmdir()
  state.write(directory, state.Status(state.RUNNING, attempts=1))
  assert state.read(directory, 4).state == state.KILLED
  with state.locked(directory):
    assert state.read(directory, 4).state == state.RUNNING
  assert main(args) == 0
  assert [s.split()[0] for s in runs_of()['sft'][1]] == ['0', '3']


def test_a_run_without_its_last_checkpoint_is_not_done(
  write_sweep, runs_of, home
):
  args = write_sweep(CHAIN)
  assert main(args) == 0
  run = runs_of()['dpo beta=0.2'][0]
  (run.directory(home / 'out') / 'checkpoints' / '4').rmdir()
  assert main(args) == 0
  starts = [len(lines) for _, lines in runs_of().values()]
  assert sorted(starts) == [1, 1, 1, 2]
  assert len(runs_of()['dpo beta=0.2'][1]) == 2


def test_a_lock_is_asked_for_as_nfs_allows(tmp_path, monkeypatch):
  flock = fcntl.flock

  def of_nfs(file, operation):
    mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
    if operation & fcntl.LOCK_EX and mode == os.O_RDONLY:
      raise OSError(errno.EBADF, 'Bad file descriptor')
    flock(file, operation)

  monkeypatch.setattr(fcntl, 'flock', of_nfs)
  with state.locked(tmp_path):
    assert state.is_locked(tmp_path)
  assert not state.is_locked(tmp_path)


def test_a_run_that_waits_for_its_lock_can_be_stopped(tmp_path):
  run, stopping = planned('a'), threading.Event()
  threading.Timer(0.3, stopping.set).start()
  with state.locked(run.directory(tmp_path)):
    status = execute.execute(run, tmp_path, stopping=stopping)
  assert status.state == state.STOPPED
  # What becomes of it is for the other to say.
  assert not (run.directory(tmp_path) / 'status.json').exists()


@pytest.mark.parametrize(
  'given, idle',
  [
    (['--sweep=s.py', '--cpus=1'], '--cpus'),
    (['--sweep=s.py', '--gpus=0', '--backend=local'], '--gpus'),
    (['--sweep=s.py', '--sbatch=-n1'], '--sbatch'),
    (['--sweep=s.py', '--sbatch=-n1', '--backend=ray'], '--sbatch'),
    (['--sweep=s.py', '--plan=p.json'], '--plan'),
    (['--run=a', '--resume', '--jobs=2'], '--jobs, --resume'),
    (['--run=a', '--backend=local', '--sweep=s.py'], '--backend, --sweep'),
  ],
)
def test_options_that_would_do_nothing_are_refused(given, idle, home, capsys):
  with pytest.raises(SystemExit):
    main(['sweep', '--workdir=out', *given])
  assert capsys.readouterr().err.endswith(f'has no use for {idle}\n')


def test_a_file_without_runs_is_refused(home, capsys):
  args = ['sweep', '--workdir=out']
  assert main([*args, '--sweep=gone.py']) == 1
  assert 'no sweep file gone.py' in capsys.readouterr().err
  (home / 'none.py').write_text('def get_sweep():\n  return []\n')
  assert main([*args, '--sweep=none.py']) == 1
  assert 'returns no list of runs' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    main(args)


class TestShares:
  def test_cores_are_dealt_out_whole(self):
    parts = local.shares(3, list(range(8)), [])
    cores = [part['cores'] for part in parts]
    assert sorted(sum(cores, [])) == list(range(8))
    assert max(map(len, cores)) - min(map(len, cores)) <= 1

  def test_more_jobs_than_cores_share(self):
    parts = local.shares(3, [4, 6], [])
    assert [part['cores'] for part in parts] == [[4], [6], [4]]

  def test_a_gpu_each(self):
    parts = local.shares(2, [0], ['0', '1', '2'])
    seen = [part['environment']['CUDA_VISIBLE_DEVICES'] for part in parts]
    # As many each: of another mesh it would be another run.
    assert seen == ['0', '1']
    with pytest.raises(ValueError, match='there are 3 GPUs'):
      local.shares(4, [0], ['0', '1', '2'])

  def test_gpus_that_jax_would_not_use_are_none(self):
    assert local.gpus({'JAX_PLATFORMS': 'cpu'}) == []
    assert local.gpus({'CUDA_VISIBLE_DEVICES': '2,5'}) == ['2', '5']
    for none in ('', '-1', '-1,0'):
      assert local.gpus({'CUDA_VISIBLE_DEVICES': none}) == []
    assert local.gpus({'CUDA_VISIBLE_DEVICES': '0,-1,1'}) == ['0']

  def test_gpus_of_rocm_are_dealt_by_its_variable(self, tmp_path, monkeypatch):
    monkeypatch.delenv('JAX_PLATFORMS')
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.setenv('HIP_VISIBLE_DEVICES', '4,6')
    seen = []
    monkeypatch.setattr(
      local, 'execute', lambda *_, environment, **kw: seen.append(environment)
    )
    work = local.make_execute(tmp_path, 2, threading.Event())
    for slot in (0, 1):
      work(planned('a'), slot)
    assert [e['HIP_VISIBLE_DEVICES'] for e in seen] == ['4', '6']

  def test_a_tpu_is_for_one_run(self, tmp_path, monkeypatch):
    assert not local.has_tpu({}, tmp_path)
    (tmp_path / 'vfio').mkdir()
    (tmp_path / 'vfio' / 'vfio').touch()  # Of any machine.
    assert not local.has_tpu({}, tmp_path)
    (tmp_path / 'vfio' / '0').touch()
    assert local.has_tpu({}, tmp_path)
    assert not local.has_tpu({'JAX_PLATFORMS': 'cpu'}, tmp_path)
    assert not local.has_tpu({'CUDA_VISIBLE_DEVICES': '0'}, tmp_path)
    assert local.has_tpu({'JAX_PLATFORMS': 'tpu,cpu'}, tmp_path / 'none')
    monkeypatch.setenv('JAX_PLATFORMS', 'tpu')
    with pytest.raises(ValueError, match='give --jobs=1'):
      local.make_execute(tmp_path, 2, threading.Event())
    local.make_execute(tmp_path, 1, threading.Event())


def test_too_many_jobs_leave_the_plan_as_it_was(write_sweep, home, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'tpu')
  assert main([*write_sweep(CHAIN), '--jobs=2']) == 1
  assert not (home / 'out' / 'sweep.json').exists()


@pytest.mark.parametrize('given', ['', '/elsewhere'])
def test_runs_share_what_they_compile(given, tmp_path, monkeypatch):
  name, seen = 'JAX_COMPILATION_CACHE_DIR', []
  monkeypatch.setenv(name, given)
  monkeypatch.setattr(
    local, 'execute', lambda *_, environment, **kw: seen.append(environment)
  )
  work = local.make_execute(tmp_path, 2, threading.Event())
  for slot in (None, 0, 1):
    work(planned('a'), slot)
  want = given or str(tmp_path / 'compiled')
  assert [environment[name] for environment in seen] == [want] * 3


def planned(name, *after, kind='dpo'):
  return plan.Planned(
    id=f'{kind}-{name}', name=name, also=(), config='', overrides=(),
    after={f'k{i}': f'dpo-{a}' for i, a in enumerate(after)}, total_steps=4,
  )  # fmt: skip


def test_an_execution_that_raises_is_a_failed_run():
  def work(run, slot):
    if run.name == 'a':
      raise OSError('the disk is gone')
    return state.Status(state.DONE)

  runs = [planned('a'), planned('b'), planned('c', 'a'), planned('d', 'c')]
  found = schedule.run_all(
    runs, {r.id: state.Status() for r in runs}, work, jobs=2,
    tell=lambda *_: None, stopping=threading.Event(),
  )  # fmt: skip
  states = [found[r.id].state for r in runs]
  assert states == ['failed', 'done', 'blocked', 'blocked']
  assert 'the disk is gone' in found['dpo-a'].error


def test_time_left_is_that_of_the_like():
  runs = [planned('a'), planned('b'), planned('c'), planned('x', kind='ppo')]
  statuses = {r.id: state.Status() for r in runs}
  progress = schedule.Progress(runs, statuses, {})
  assert schedule.seconds_left(progress, 2) is None
  statuses['dpo-a'] = state.Status(state.DONE, seconds=10)
  assert schedule.seconds_left(progress, 1) == 30
  assert schedule.seconds_left(progress, 3) == 10
  statuses['dpo-b'] = state.Status(state.RUNNING)
  progress.started['dpo-b'] = time.monotonic() - 6
  assert schedule.seconds_left(progress, 1) == pytest.approx(24, abs=0.5)


@pytest.mark.parametrize(
  'log, error',
  [
    ('a\ralignax train: no data.path\n', 'alignax train: no data.path'),
    ('Traceback:\n  File x\nValueError: old\nmore\n'
     'jax.errors.JaxRuntimeError: RESOURCE\nof 2 GB\n',
     'jax.errors.JaxRuntimeError: RESOURCE\nof 2 GB'),
    ('dpo:  3%| | 1/40\rdpo:  9%| | 4/40\n', 'it wrote nothing'),
    ('Segmentation fault\n', 'Segmentation fault'),
  ],
)  # fmt: skip
def test_the_last_error_of_a_log(log, error):
  assert state.last_error(log) == error


def test_a_run_that_all_wait_for_has_all_cores(write_sweep, runs_of):
  assert main([*write_sweep(CHAIN), '--jobs=2']) == 0
  mine = os.sched_getaffinity(0)
  (line,) = runs_of()['sft'][1]
  assert set(eval(line.split(' ', 1)[1])) == mine
  shares = [
    set(eval(lines[0].split(' ', 1)[1]))
    for name, (_, lines) in runs_of().items()
    if name != 'sft'
  ]
  # The last of three is alone again.
  assert sorted(map(len, shares))[0] == max(1, len(mine) // 2)
