"""The table of the monitor's experiment, on runs whose turns are known."""

import json

import numpy as np

from alignax import report
from experiments.monitor import table


def write(path, seed: int, judge, rate: float = 1 / 30):
  """A run whose proxy rises at a rate; both without noise."""
  path.mkdir(parents=True)
  config = dict(algorithm='ppo', seed=seed, total_steps=60)
  (path / 'config.json').write_text(json.dumps(config))
  lines = [
    {'step': 2 * i, 'probes/reward': rate * i, 'probes/total': float(y),
     'monitor/best_step': 0}
    for i, y in enumerate(judge)
  ]  # fmt: skip
  (path / 'metrics.jsonl').write_text(
    ''.join(json.dumps(line) + '\n' for line in lines)
  )


def test_warnings_are_early_late_or_false(tmp_path):
  i = np.arange(31)
  turns = 0.6 - 0.02 * np.abs(i - 10)  # At step 20; ends at 0.2.
  rises = 0.3 + 0.01 * i
  dips = rises - 0.015 * np.clip(i - 10, 0, 6)  # From step 20 to 32.
  write(tmp_path / 'ppo-s0', 0, turns)
  write(tmp_path / 'ppo-s1', 1, turns, rate=-0.1)  # Both fall: no hacking.
  write(tmp_path / 'ppo-s2', 2, dips)
  write(tmp_path / 'ppo-s3', 3, rises)
  out = table.table({'ppo': report.find_runs([tmp_path])})
  # Four evaluations are a line, and two in a row a warning: 10 to 14.
  assert '| ppo | 0 | 20 | 28 | 0.520 | 0.200 | 0.600 |' in out
  assert '| ppo | 1 | 20 | – | – | 0.200 | 0.200 |' in out
  assert '| ppo | 2 | – | 28 |' in out
  assert '| ppo | 3 | – | – | – | 0.600 | 0.600 |' in out
  # Means are of the run that was warned of; of four, one alarm was false.
  for name in ('ppo', 'all'):
    assert (
      f'| {name} | 2 of 4 | 1 of 2 [0.09, 0.91] | 8 updates | 0.52 | 0.60 | '
      '0.20 |'
    ) in out
  assert out.count('| 1 of 2 [0.09, 0.91] |\n') == 2
