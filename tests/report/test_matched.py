"""Methods at equal KL: what is on one curve is not told apart."""

import json
import math
import re

import fake_runs
import pytest

from alignax import report
from alignax.report import groups, matched

METRICS = 'probes/total', 'probes/kl_exact'
DENSE = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.2)
SPARSE = (0.0, 0.9, 1.1, 1.2)


def write_curve(path, algorithm, seed, points):
  fake_runs.write_run(path, algorithm=algorithm, seed=seed, total=len(points))
  lines = [
    dict(zip(('step', *METRICS), (step, reward, kl)))
    for step, (kl, reward) in enumerate(points, 1)
  ]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (path / 'metrics.jsonl').write_text(text)


def reward(kl, seed, start):
  """On the curve of a seed, which may have a start of its own."""
  return 0.6 + 0.15 * math.sqrt(kl) + 0.01 * seed * (start or kl > 0)


@pytest.mark.parametrize('start', [True, False])
def test_one_frontier_is_no_difference_however_often_evaluated(tmp_path, start):
  for name, kls in (('dense', DENSE), ('sparse', SPARSE)):
    for seed in range(5):
      points = [(kl, reward(kl, seed, start)) for kl in kls]
      write_curve(tmp_path / f'{name}-s{seed}', name, seed, points)
  found = matched.sections(
    groups.group(report.find_runs([tmp_path])), [METRICS], ['algorithm'],
    baseline='dense',
  )  # fmt: skip
  _, table, against = (section.html for section in found)
  known = [float(x) for x in re.findall('data-sort="([^"]+)"', against)]
  # At 1; at 0.25, 0.5 and 0.75 nothing was evaluated near.
  assert known == [pytest.approx(0, abs=1e-9)]
  assert against.count('class="missing"') == table.count('class="missing"') == 3


@pytest.mark.parametrize('first', [1, 2, 3])
def test_an_interpolation_is_not_wrong_by_more_than_its_slack(first):
  # Highest at KL 1, with a gain of 0.2: of which 2 % are 0.004.
  curve = lambda kl: math.sqrt(kl) * (0.4 - 0.2 * math.sqrt(kl))
  points = [(kl, curve(kl)) for kl in (0.0, 0.1 * first, 0.8, 1.0)]
  levels = [i / 100 for i in range(1, 101)]
  found = {kl: matched.at_kl(points, kl, slack=0.02) for kl in levels}
  errors = [abs(y - curve(kl)) for kl, y in found.items() if y is not None]
  assert 0.5 * 0.004 < max(errors) <= 0.004 + 1e-9
  assert 10 < len(errors) < 90


def test_seeds_that_were_not_evaluated_near_are_counted(tmp_path):
  for seed, name in enumerate(('a', 'a', 'b')):
    kls = SPARSE if seed == 1 else DENSE
    points = [(kl, reward(kl, 0, True)) for kl in kls]
    write_curve(tmp_path / f'{name}{seed}', name, seed, points)
  found = matched.sections(
    groups.group(report.find_runs([tmp_path])), [METRICS], ['algorithm']
  )
  assert found[1].html.count('<small>1 of 2 seeds</small>') == 3
