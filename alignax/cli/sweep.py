"""`alignax sweep`: train many runs, each once.

  alignax sweep --sweep=experiments/preference_losses/sweep.py \
      --workdir=runs/preference_losses --jobs=2

The file's `get_sweep()` returns the runs (see `alignax.sweeps`); what they
start from is trained first, and once. Run again, the command repeats nothing
that is done, and goes on with what was killed or stopped from its last
checkpoint; runs that ended with an error are tried again with --resume.
`alignax report WORKDIR` shows all of it on one page.

  local  processes on this machine, a GPU or a share of the cores each
  ray    tasks of a Ray cluster: pip install 'alignax[ray]', ray start --head
  slurm  array jobs; --sbatch=--partition=gpu passes an option on
"""

import argparse
import contextlib
import pathlib
import shlex
import signal
import threading
import time

from alignax import checks
from alignax.alone import try_lock
from alignax.cli import configs
from alignax.sweeps import execute, local, plan, schedule, slurm, state

SWEEP = ('sweep', 'backend', 'jobs', 'resume')
USED = {  # Options that do something.
  '--run': ('run', 'plan'),
  '--backend=local': SWEEP,
  '--backend=ray': (*SWEEP, 'cpus', 'gpus'),
  '--backend=slurm': (*SWEEP, 'cpus', 'gpus', 'sbatch'),
}


def main(argv: list[str]) -> int:
  args = parse(argv)
  checks.check_workdir(args.workdir)
  with stop_signals() as stopping:
    if args.run:
      return one(args.workdir, args.run, stopping, args.plan)
    runs = plan.make_plan(plan.load_sweep(args.sweep), configs.load)
    for run in runs:
      for name in run.also:
        print(f'{name!r} has the config of {run.name!r}: run once.')
    with only_here(args.workdir):
      return sweep(args, runs, stopping)


def sweep(args, runs, stopping) -> int:
  """Runs, or submits, what is not done; says what became of it."""
  statuses = to_do(runs, args.workdir, args.resume)
  waits = sum(s.state == state.WAITING for s in statuses.values())
  if waits and args.backend == 'slurm':
    slurm.check(args.workdir)
  elif waits:
    jobs, work = workers(args, waits, stopping)
  # Not before: a sweep that is refused leaves the plan of another as it is.
  plan.save(runs, args.workdir, args.sweep)
  if not waits:
    print('Nothing is left to run.')
  elif args.backend == 'slurm':
    return submit(args, runs, statuses)
  else:
    statuses = execute_all(args, runs, statuses, stopping, jobs, work)
  return tell_end(runs, statuses, args.workdir)


@contextlib.contextmanager
def stop_signals():
  """An event that is set when this process is asked to stop."""
  stopping = threading.Event()
  handler = lambda *_: stopping.set()
  numbers = (signal.SIGTERM, signal.SIGINT)
  old = [signal.signal(number, handler) for number in numbers]
  try:
    yield stopping
  finally:
    for number, previous in zip(numbers, old):
      signal.signal(number, previous)


def parse(argv: list[str]):
  parser = argparse.ArgumentParser(
    prog='alignax sweep',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--sweep', help='FILE.py with get_sweep()')
  add('--workdir', required=True, help='directory of the sweep')
  add('--backend', choices=('local', 'ray', 'slurm'), help='default: local')
  add('--jobs', type=int, default=0, help='runs at a time; default: one a GPU, '
      'or one; on ray and slurm as many as they have room for')  # fmt: skip
  add('--resume', action='store_true', help='try what failed again')
  add('--cpus', type=int, help='of one run, on ray and slurm; default: 1')
  add('--gpus', type=int, help='of one run, on ray and slurm; default: 0')
  add('--sbatch', action='append', default=[], metavar='OPTION',
      help='passed on to sbatch; may be given several times')  # fmt: skip
  add('--run', metavar='ID', help='only this run of a planned sweep, here; '
      'what a Slurm task calls')  # fmt: skip
  add('--plan', metavar='FILE', help='the plan that --run is of; default: the '
      'sweep.json of the workdir')  # fmt: skip
  args = parser.parse_args(argv)
  if not args.sweep and not args.run:
    parser.error('--sweep is needed: a file with get_sweep()')
  if args.jobs < 0:
    parser.error(f'--jobs is {args.jobs}; give 1 or more')
  refuse_idle(parser, args)
  args.backend = args.backend or 'local'
  args.cpus = 1 if args.cpus is None else args.cpus
  args.gpus = args.gpus or 0
  return args


def refuse_idle(parser, args):
  """An error for options that would do nothing."""
  mode = '--run' if args.run else f'--backend={args.backend or "local"}'
  given = {k for k, v in vars(args).items() if v != parser.get_default(k)}
  idle = sorted(given - {'workdir', *USED[mode]})
  if idle:
    names = ', '.join(f'--{name}' for name in idle)
    parser.error(f'{mode} has no use for {names}')


def only_here(workdir):
  """Holds the sweep's lock; raises if another command has it."""
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  file = (workdir / 'lock').open('w')
  if not try_lock(file):
    file.close()
    raise ValueError(f'Another alignax sweep is at work in {workdir}.')
  return file


def to_do(runs, workdir, resume: bool) -> dict[str, state.Status]:
  """The status of every run; what is to be run waits."""
  again = {state.STOPPED, state.KILLED, state.BLOCKED, state.RUNNING}
  again |= {state.FAILED} if resume else set()
  found = {}
  for run in runs:
    status = state.read(run.directory(workdir), run.total_steps)
    if status.state in again:
      step = state.last_step(run.directory(workdir))
      print(f'{run.name}: {status.state} at step {step}, goes on.')
      status = status._replace(state=state.WAITING)
    found[run.id] = status
  count = lambda kind: sum(s.state == kind for s in found.values())
  text = f'{len(runs)} runs, {count(state.DONE)} of them done'
  if failed := count(state.FAILED):
    text += f', {failed} failed before: --resume tries them again'
  print(f'{text}.', flush=True)
  return found


def workers(args, waiting: int, stopping):
  """How many runs at a time, and what executes one: here, or on Ray."""
  if args.backend == 'ray':
    from alignax.sweeps import ray_cluster

    return args.jobs or waiting, ray_cluster.make_execute(
      args.workdir, stopping, cpus=args.cpus, gpus=args.gpus
    )
  jobs = args.jobs or local.default_jobs()
  return jobs, local.make_execute(args.workdir, jobs, stopping)


def execute_all(args, runs, statuses, stopping, jobs, work):
  """Runs what waits."""
  teller = lambda progress, id: tell(progress, id, args.workdir, jobs)
  ended = schedule.run_all(
    runs, statuses, work, jobs=jobs, tell=teller, stopping=stopping
  )
  for run in runs:
    state.write_end(run.directory(args.workdir), ended[run.id])
  return ended


def tell(progress, id: str, workdir, jobs: int):
  """A line on what happened to a run, or on how far all of them are."""
  runs = {run.id: run for run in progress.plan}
  now = time.strftime('%H:%M:%S')
  if id:
    status = progress.statuses[id]
    what = 'start' if status.state == state.RUNNING else status.state
    error = f': {status.error.splitlines()[0]}' if status.error else ''
    print(f'{now} {what:<8}{runs[id].name}{error}', flush=True)
    if status.state == state.RUNNING:
      return
  parts = [f'{progress.count(state.DONE)} of {len(runs)} done']
  if over := progress.count(*schedule.OVER):
    parts.append(f'{over} not')
  for key in () if id else progress.started:
    step = state.last_step(runs[key].directory(workdir))
    parts.append(f'{runs[key].name} at {step} of {runs[key].total_steps}')
  if left := schedule.seconds_left(progress, jobs):
    parts.append(f'about {duration(left)} left')
  print(f'{now} {"; ".join(parts)}', flush=True)


def duration(seconds: float) -> str:
  if seconds < 90:
    return f'{seconds:.0f} s'
  if seconds < 5400:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'


def tell_end(runs, statuses, workdir) -> int:
  """What is not done, why, and how to run it alone."""
  rest = [r for r in runs if statuses[r.id].state != state.DONE]
  for run in rest:
    status = statuses[run.id]
    error = f': {status.error}' if status.error else ''
    print(f'\n{run.name}: {status.state}{error}')
    if status.state == state.FAILED:
      print(f'  log: {run.directory(workdir) / execute.LOG}')
    if status.state in (state.FAILED, state.KILLED):
      print(f'  alone: {alone(run, workdir)}')
  print(f'\n{len(runs) - len(rest)} of {len(runs)} runs are done. The page: '
        f'alignax report {workdir}')  # fmt: skip
  return 1 if rest else 0


def alone(run, workdir) -> str:
  """The command that goes on with a run, without the sweep."""
  return f'alignax train {shlex.join(run.arguments(workdir))}'


def submit(args, runs, statuses) -> int:
  jobs = slurm.submit(
    runs, statuses, args.workdir, sweep=args.sweep, jobs=args.jobs,
    cpus=args.cpus, gpus=args.gpus, options=args.sbatch,
  )  # fmt: skip
  print(f'submitted: {", ".join(jobs)}; scripts and output are in '
        f'{args.workdir}/slurm. The same command, later, says what became of '
        'it, and submits what is left.')  # fmt: skip
  return 0


def one(workdir, id: str, stopping, file=None) -> int:
  """One run of a planned sweep, in this process's place in a queue."""
  planned = plan.load_file(pathlib.Path(file)) if file else plan.load(workdir)
  runs = {run.id: run for run in planned}
  if id not in runs:
    raise ValueError(
      f'{file or workdir} has no run {id!r}; it has {", ".join(runs)}.'
    )
  run = runs[id]
  for key, stage in run.after.items():
    found = state.read(runs[stage].directory(workdir), runs[stage].total_steps)
    if found.state != state.DONE:
      error = f'it starts from {runs[stage].name!r} ({key}), which is not done'
      state.write(run.directory(workdir), state.Status(state.BLOCKED, error))
      raise ValueError(f'{run.name}: {error}.')
  status = execute.execute(run, workdir, stopping=stopping)
  print(f'{run.name}: {status.state} {status.error}'.rstrip())
  return 0 if status.state == state.DONE else 1
