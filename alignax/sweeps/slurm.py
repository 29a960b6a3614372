"""Backend: array jobs of Slurm.

An array a level: the runs that start from none, those that start from these,
and so on. Each waits for the one before it, whatever became of that; a run
whose own stage is not done then says so, and does not start.

What was submitted stays as it was, whatever is started in the directory while
it waits: Slurm keeps a copy of the scripts, which name their runs, and a plan
that is never written over.
"""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from alignax.sweeps import plan as plans
from alignax.sweeps import state
from alignax.sweeps.plan import Planned
from alignax.sweeps.state import Status

SCRIPT = """#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}{limit}
#SBATCH --cpus-per-task={cpus}
#SBATCH --output={output}
# Told two minutes before its time is up, a run saves; the sweep goes on later.
#SBATCH --signal=B:TERM@120
# Written by alignax sweep: task I of the array runs number I of these.
runs=({runs})
set -euo pipefail
cd {cwd}
exec {command} --run="${{runs[$SLURM_ARRAY_TASK_ID]}}"
"""


def submit(
  plan: Sequence[Planned],
  statuses: Mapping[str, Status],
  workdir,
  *,
  sweep: str,
  jobs: int,
  cpus: int,
  gpus: int,
  options: Sequence[str] = (),
) -> list[str]:
  """Writes and submits an array job for every level of what waits.

  Call `check` first.

  Args:
    plan: all runs.
    statuses: of all of them, by id; those that wait are submitted.
    workdir: of the sweep; on a file system that all nodes see.
    sweep: its file.
    jobs: how many of an array run at a time; 0: as Slurm likes.
    cpus: of one run.
    gpus: of one run.
    options: more of sbatch: ['--partition=gpu', '--time=4:00:00'].

  Returns:
    The ids of the jobs.
  """
  folder = _folder(workdir)
  file = folder / f'plan-{_digest(plan)}.json'
  plans.save_file(plan, file, sweep)
  submitted = []
  for number, level in enumerate(levels(plan, statuses)):
    script = write(number, level, workdir, file, jobs=jobs, cpus=cpus)
    given = [f'--gpus={gpus}'] * (gpus > 0)
    if submitted:
      given.append(f'--dependency=afterany:{submitted[-1]}')
    submitted.append(_sbatch([*given, *options, str(script)]))
    # At once: should a later level be refused, this one is known.
    (folder / 'jobs.json').write_text(json.dumps(submitted) + '\n')
  return submitted


def check(workdir):
  """Whether jobs can be submitted; changes nothing.

  Raises:
    ValueError: there is no sbatch, or an earlier submission is not over.
  """
  if shutil.which('sbatch') is None:
    raise ValueError(
      '--backend=slurm needs sbatch, which is on the login nodes of a Slurm '
      'cluster, and not on the PATH here. --backend=local needs nothing, and '
      'runs on this machine.'
    )
  _check_queue(_folder(workdir))


def _folder(workdir) -> pathlib.Path:
  return pathlib.Path(workdir).absolute() / 'slurm'


def _digest(plan: Sequence[Planned]) -> str:
  return plans.digest({run.id: dataclasses.asdict(run) for run in plan})


def levels(
  plan: Sequence[Planned], statuses: Mapping[str, Status]
) -> list[list[Planned]]:
  """What waits, in rounds: each needs only what is done or came before."""
  depth: dict[str, int] = {}
  found: list[list[Planned]] = []
  for run in plan:
    if statuses[run.id].state != state.WAITING:
      continue
    level = max((depth[s] + 1 for s in run.after.values() if s in depth),
                default=0)  # fmt: skip
    depth[run.id] = level
    if level == len(found):
      found.append([])
    found[level].append(run)
  return found


def write(number: int, level, workdir, plan, *, jobs, cpus) -> pathlib.Path:
  """Writes the script of an array."""
  folder = _folder(workdir)
  command = [
    sys.executable, '-m', 'alignax.cli', 'sweep',
    f'--workdir={pathlib.Path(workdir).absolute()}', f'--plan={plan}',
  ]  # fmt: skip
  script = folder / f'level-{number}.sh'
  script.write_text(
    SCRIPT.format(
      name=_quoted(f'{pathlib.Path(workdir).absolute().name}-{number}'),
      last=len(level) - 1,
      limit=f'%{jobs}' if jobs else '',
      cpus=cpus,
      # Of a folder, a % is no sign for a number of the job.
      output=_quoted(f'{folder}'.replace('%', '%%') + '/%A-%a.out'),
      cwd=shlex.quote(os.getcwd()),
      runs=' '.join(shlex.quote(run.id) for run in level),
      command=shlex.join(command),
    )
  )
  return script


def _quoted(text: str) -> str:
  """One argument, as sbatch reads them in comments of a script."""
  escaped = re.sub(r'(["\\])', r'\\\1', text)
  return f'"{escaped}"'


def _sbatch(arguments: list[str]) -> str:
  result = subprocess.run(
    ['sbatch', '--parsable', *arguments], capture_output=True, text=True
  )
  if result.returncode:
    raise RuntimeError(f'sbatch said: {result.stderr.strip()}')
  return result.stdout.strip().split(';')[0]  # 'JOB' or 'JOB;CLUSTER'.


def _check_queue(folder: pathlib.Path):
  """Raises if jobs of an earlier call are still to come."""
  path = folder / 'jobs.json'
  if not path.exists() or shutil.which('squeue') is None:
    return
  jobs = ','.join(json.loads(path.read_text()))
  result = subprocess.run(
    ['squeue', '--noheader', f'--jobs={jobs}'], capture_output=True, text=True
  )
  if result.returncode == 0 and result.stdout.strip():
    raise ValueError(
      f'Jobs {jobs} of {folder.parent} are not over: wait for them, or scancel '
      f'{jobs.replace(",", " ")}, then run the same command again.'
    )
