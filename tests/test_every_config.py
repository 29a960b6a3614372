"""Every config as it is, from the command line, as a new user tries it.

Each takes less than a minute of two cores, with the stages it starts from;
`-s` prints how long, and what came of it, for the docstring of the config.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from alignax import metrics

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(
  path.name
  for path in (ROOT / 'configs').glob('[a-z]*.py')
  if path.name not in ('common.py', 'quickstart.py')
)
SHOWN = (
  'samples/total', 'heldout/rewards/accuracy', 'heldout/loss',
  'objective/score',
)  # fmt: skip


@pytest.mark.gold
@pytest.mark.parametrize('name', CONFIGS)
def test_it_runs_to_its_end_and_learns(name, tmp_path):
  # As people run it: one device, and with XLA's optimisation.
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  command = [sys.executable, '-m', 'alignax.cli', 'train']
  command += [f'--config=configs/{name}:size=tiny', f'--workdir={tmp_path}']
  began = time.monotonic()
  subprocess.run(command, check=True, cwd=ROOT, env=env)
  rows = metrics.read(tmp_path)
  stages = sorted(p.name for p in (tmp_path / 'stages').glob('*'))
  own = f'{rows[-1]["seconds"]:.0f} s itself, after {stages or "nothing"}'
  print(f'\n{name}: {time.monotonic() - began:.0f} s, {own}')
  for key in SHOWN:
    found = [row[key] for row in rows if key in row]
    if found:
      print(f'  {key} {found[0]:.3f} -> {found[-1]:.3f}')
  config = json.loads((tmp_path / 'config.json').read_text())
  assert rows[-1]['step'] == config['total_steps']
  assert all(row.get('skipped', 0) == 0 for row in rows)
  assert has_learned(rows)


def has_learned(rows) -> bool:
  """Whether what it learns from says so, on held-out rows or of its samples."""
  losses = [row['heldout/loss'] for row in rows if 'heldout/loss' in row]
  if losses:
    return losses[-1] < losses[0]
  scores = [row['objective/score'] for row in rows if 'objective/score' in row]
  return sum(scores[-4:]) > sum(scores[:4])
