"""Array jobs, by an sbatch that runs them at once."""

import os
import pathlib
import re
import shlex
import stat
import subprocess

import pytest

from alignax.cli import main
from alignax.sweeps import plan, slurm, state

ROOT = pathlib.Path(__file__).parents[2]
# Keeps its arguments, checks the dependency, and runs each task of the array.
SBATCH = """#!/usr/bin/env bash
set -u
echo "$@" >> {calls}
for last in "$@"; do :; done
array=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$last")
number=$(wc -l < {calls})
for ((i = 0; i <= array; i++)); do
  SLURM_ARRAY_TASK_ID=$i bash "$last" > {folder}/task-$number-$i.out 2>&1
done
echo "10$number;cluster"
"""
CHAIN = """
sft = sweeps.run('small.py:sft', {'algorithm_kw.behave': %r}, name='sft')
dpo = sweeps.run('small.py:dpo', name='dpo', after=sft)
return sweeps.seeds(dpo, 2)
"""
OTHER = "return [sweeps.run('small.py', {'seed': 7})]"
THIRD = "return [sweeps.run('small.py', {'seed': 8})]"


@pytest.fixture
def sbatch(home, monkeypatch):
  """Puts a fake on the PATH; returns the file of its calls."""
  folder, calls = home / 'bin', home / 'calls'
  folder.mkdir()
  script = folder / 'sbatch'
  script.write_text(SBATCH.format(calls=calls, folder=home))
  script.chmod(script.stat().st_mode | stat.S_IEXEC)
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  return calls


def test_an_array_a_level_each_after_the_one_before(
  sbatch, write_sweep, runs_of, capsys
):
  args = write_sweep(CHAIN % '')
  more = ['--backend=slurm', '--jobs=4', '--cpus=3', '--gpus=1']
  assert main([*args, *more, '--sbatch=--partition=long']) == 0
  assert 'submitted: 101, 102' in capsys.readouterr().out
  first, second = sbatch.read_text().splitlines()
  assert '--gpus=1 --partition=long' in first
  assert 'dependency' not in first
  assert '--dependency=afterany:101' in second
  script = pathlib.Path('out/slurm/level-1.sh').read_text()
  assert '#SBATCH --array=0-1%4' in script
  assert '#SBATCH --cpus-per-task=3' in script
  assert [len(starts) for _, starts in runs_of().values()] == [1, 1, 1]
  assert main([*args, '--backend=slurm']) == 0
  assert '3 of 3 runs are done' in capsys.readouterr().out
  assert len(sbatch.read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_run_whose_stage_failed_says_so(sbatch, write_sweep, runs_of, home):
  args = write_sweep(CHAIN % 'fail')
  assert main([*args, '--backend=slurm']) == 0
  run, starts = runs_of()['dpo seed=0']
  assert not starts
  status = state.read(run.directory(home / 'out'), run.total_steps)
  assert status.state == state.BLOCKED and "'sft'" in status.error
  text = (home / 'task-2-0.out').read_text()
  assert "starts from 'sft' (init_from), which is not done" in text
  # Submitted again, the stage goes on, and the others with it.
  assert main([*args, '--backend=slurm', '--resume']) == 0
  assert main(args) == 0
  assert [len(starts) for _, starts in runs_of().values()] == [2, 1, 1]


@pytest.mark.slow
def test_a_sweep_in_the_queue_is_not_submitted_twice(
  sbatch, write_sweep, home, capsys
):
  args = [*write_sweep(CHAIN % 'fail'), '--backend=slurm', '--resume']
  assert main(args) == 0
  squeue = home / 'bin' / 'squeue'
  squeue.write_text('#!/usr/bin/env bash\necho "101 RUNNING"\n')
  squeue.chmod(0o755)
  assert main(args) == 1
  error = capsys.readouterr().err
  assert re.search('Jobs 101,102 .* are not over.*scancel 101 102', error)
  # Nor is another sweep, which would else be what `report` shows.
  before = (home / 'out' / 'sweep.json').read_text()
  assert main([*write_sweep(OTHER), '--backend=slurm']) == 1
  assert (home / 'out' / 'sweep.json').read_text() == before


def test_what_waits_in_the_queue_outlives_another_sweep(
  sbatch, write_sweep, runs_of, home, monkeypatch
):
  (home / 'bin' / 'sbatch').write_text('#!/usr/bin/env bash\necho 7\n')
  assert main([*write_sweep(CHAIN % ''), '--backend=slurm']) == 0
  queued = (home / 'out' / 'slurm' / 'level-0.sh').read_text()
  run = runs_of()['sft'][0]
  # One here, and one for the queue, whose scripts have the same names.
  assert main(write_sweep(OTHER)) == 0
  assert main([*write_sweep(THIRD), '--backend=slurm']) == 0
  monkeypatch.setenv('SLURM_ARRAY_TASK_ID', '0')
  subprocess.run(['bash', '-c', queued], check=True)
  status = state.read(run.directory(home / 'out'), run.total_steps)
  assert status.state == state.DONE


def test_without_sbatch_it_says_what_works(
  write_sweep, monkeypatch, home, capsys
):
  monkeypatch.setenv('PATH', str(home))
  assert main([*write_sweep(CHAIN % ''), '--backend=slurm']) == 1
  error = capsys.readouterr().err
  assert 'needs sbatch' in error and '--backend=local' in error


def test_paths_may_have_spaces(home):
  workdir = home / 'my "runs" of 100%'
  (workdir / 'slurm').mkdir(parents=True)
  script = slurm.write(0, [], workdir, 'p.json', jobs=0, cpus=1).read_text()
  options = dict(
    shlex.split(line.removeprefix('#SBATCH '))[0].split('=', 1)
    for line in script.splitlines()
    if line.startswith('#SBATCH ')
  )
  folder = str(home / 'my "runs" of 100%%' / 'slurm')
  assert options['--job-name'] == 'my "runs" of 100%-0'
  assert options['--output'] == f'{folder}/%A-%a.out'


def test_levels_need_only_those_before():
  runs = [
    plan.Planned(id=i, name=i, also=(), config='', overrides=(),
                 after={str(k): s for k, s in enumerate(after)}, total_steps=1)
    for i, after in (('a', ''), ('b', 'a'), ('c', 'ab'), ('d', ''), ('e', 'd'))
  ]  # fmt: skip
  waiting = {r.id: state.Status() for r in runs}
  ids = lambda levels: [[r.id for r in level] for level in levels]
  found = slurm.levels(runs, waiting)
  assert ids(found) == [['a', 'd'], ['b', 'e'], ['c']]
  done = waiting | {
    'a': state.Status(state.DONE),
    'd': state.Status(state.DONE),
  }
  assert ids(slurm.levels(runs, done)) == [['b', 'e'], ['c']]
