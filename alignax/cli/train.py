"""`alignax train`: train what a config describes.

  alignax train --config=configs/dpo.py:size=tiny --workdir=runs/dpo \
      --config.total_steps=100 --config.algorithm_kw.beta=0.2

The same command goes on where an earlier try ended. On several hosts, run it on
each with --distributed: jax finds the others on TPU pods, in Slurm and under
Open MPI; elsewhere, JAX_COORDINATOR_ADDRESS, ALIGNAX_NUM_PROCESSES and
ALIGNAX_PROCESS_ID say where they are. WORKDIR is then one that all see.
"""

import argparse
import os

from alignax.cli import configs


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
    prog='alignax train',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--config', required=True, help='FILE.py[:ARGS]')
  parser.add_argument('--workdir', required=True, help='directory of the run')
  parser.add_argument(
    '--trace', action='store_true', help='show where an error comes from'
  )
  parser.add_argument(
    '--distributed', action='store_true', help='one of several hosts'
  )
  args, overrides = parser.parse_known_args(argv)
  config = configs.load(args.config, overrides)
  if args.distributed:
    join_hosts()
  # Only now: a mistake in the config is found in a second, not in ten.
  from alignax import run

  try:
    last = run.train(config, args.workdir, load_config=configs.load)
  except run.Stopped as stop:
    print(stop)
    return 0
  print(f'done: {args.workdir} at step {last.get("step", 0)}')
  return 0


def join_hosts(environment=os.environ):
  """Waits for the other hosts; has to come before anything uses a device."""
  import jax

  names = ('ALIGNAX_NUM_PROCESSES', 'ALIGNAX_PROCESS_ID')
  given = [name for name in names if name in environment]
  if not given:
    jax.distributed.initialize()
    return
  names = ('JAX_COORDINATOR_ADDRESS', *names)
  absent = [name for name in names if name not in environment]
  if absent:
    raise ValueError(f'{given[0]} is set, but not {" and ".join(absent)}.')
  address, *numbers = (environment[name] for name in names)
  count, number = map(int, numbers)
  jax.distributed.initialize(address, count, number)
