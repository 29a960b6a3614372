"""`alignax train`: train what a config describes.

  alignax train --config=configs/dpo.py:size=tiny --workdir=runs/dpo \
      --config.total_steps=100 --config.algorithm_kw.beta=0.2

The same command goes on where an earlier try ended.
"""

import argparse

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
  args, overrides = parser.parse_known_args(argv)
  config = configs.load(args.config, overrides)
  # Only now: a mistake in the config is found in a second, not in ten.
  from alignax import run

  try:
    last = run.train(config, args.workdir, load_config=configs.load)
  except run.Stopped as stop:
    print(stop)
    return 0
  print(f'done: {args.workdir} at step {last.get("step", 0)}')
  return 0
