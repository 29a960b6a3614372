"""The table of the monitor's experiment, on runs whose turns are known."""

import json

import numpy as np

from alignax import report
from experiments.monitor import table


def write(path, seed: int, judge, warned: int | None):
  path.mkdir(parents=True)
  config = dict(algorithm='ppo', seed=seed, total_steps=60)
  (path / 'config.json').write_text(json.dumps(config))
  lines = [
    {'step': 2 * i, 'probes/reward': i / 30, 'probes/total': float(y),
     'monitor/warning': float(warned is not None and 2 * i >= warned)}
    for i, y in enumerate(judge)
  ]  # fmt: skip
  (path / 'metrics.jsonl').write_text(
    ''.join(json.dumps(line) + '\n' for line in lines)
  )


def test_warnings_are_early_late_or_false(tmp_path):
  i = np.arange(31)
  turns = 0.6 - 0.02 * np.abs(i - 10)  # At step 20; ends at 0.2.
  rises = 0.3 + 0.01 * i
  write(tmp_path / 'ppo-s0', 0, turns, warned=34)
  write(tmp_path / 'ppo-s1', 1, turns, warned=None)
  write(tmp_path / 'ppo-s2', 2, turns, warned=10)
  write(tmp_path / 'ppo-s3', 3, rises, warned=40)
  write(tmp_path / 'ppo-s4', 4, rises, warned=None)
  out = table.table({'ppo': report.find_runs([tmp_path])})
  assert '| ppo | 0 | 20 | 34 | 0.460 | 0.200 | 0.600 |' in out
  assert '| ppo | 1 | 20 | – | – | 0.200 | 0.200 |' in out
  assert '| ppo | 4 | – | – | – | 0.600 | 0.600 |' in out
  assert (
    'ppo: 3 of 5 turned; warned of 1 of these, 14 steps after it '
    '(median); 2 false alarms.'
  ) in out
