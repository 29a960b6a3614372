"""A sweep's page: seeds together, what died with its error, nothing as zero."""

import csv

import pytest

from alignax import report
from alignax.cli import main
from alignax.evals.intervals import bootstrap
from alignax.report import matched

SEEDS = """
sft = sweeps.run('small.py:sft', {'algorithm_kw.behave': 'quiet'}, name='sft')
dpo = sweeps.run('small.py:dpo', name='dpo', after=sft)
runs = sweeps.grid(dpo, {'algorithm_kw.loss': ['dpo', 'ipo'],
                         'algorithm_kw.beta': [0.1, 0.2]})
runs = sweeps.seeds(runs, 3, stages=True)
broken = sweeps.run('small.py:dpo', {'algorithm_kw.behave': 'fail'}, name='ill')
late = sweeps.run('small.py:dpo', {'seed': 7}, name='late', after=broken)
again = sweeps.run('small.py:dpo', {'algorithm_kw.behave': 'fail'}, name='same')
return [*runs, broken, late, again]
"""


@pytest.fixture
def out(write_sweep, home):
  assert main([*write_sweep(SEEDS), '--jobs=2']) == 1
  return home / 'out'


def test_the_page_of_a_sweep(out, home, capsys):
  page, table = home / 'page.html', home / 'runs.csv'
  args = ['report', str(out), f'--output={page}', f'--csv={table}']
  by = ['--by=algorithm_kw.loss', '--baseline=dpo']
  assert main([*args, *by, f'--markdown={home / "runs.md"}']) == 0
  markdown = (home / 'runs.md').read_text()
  groups = {
    line.split('|')[1].strip(): line
    for line in markdown.split('\n\n')[0].splitlines()[2:]
  }
  # Every seed has a stage of its own, and they are one line all the same.
  assert groups.keys() == {
    'dpo loss=dpo beta=0.1 (3 seeds)', 'dpo loss=dpo beta=0.2 (3 seeds)',
    'dpo loss=ipo beta=0.1 (3 seeds)', 'dpo loss=ipo beta=0.2 (3 seeds)',
    'sft (3 seeds)', 'ill', 'late',
  }  # fmt: skip
  assert (
    '- ill: failed at step 2 of 4: ValueError: the loss was not finite\n'
    '  `alignax train --config=small.py:dpo'
  ) in markdown
  # It would start from whatever the stage came to.
  assert 'late: blocked' in markdown
  assert '  not before ill is done\n' in markdown
  text = page.read_text()
  assert 'not before ill is done' in text
  assert '--config.seed=7' not in text + markdown
  assert 'ValueError: the loss\nwas not finite' in text
  assert 'alignax train --config=small.py:dpo' in text
  assert 'blocked' in text and 'starts from &#x27;ill&#x27;' in text
  assert 'same has the config of ill' in text
  assert 'samples/total at equal KL, against dpo' in text
  rows = {row['run']: row for row in csv.DictReader(table.open())}
  assert rows['late']['samples/total'] == rows['ill']['samples/total'] == ''
  assert rows['late']['status'] == 'blocked'
  assert rows['ill']['status'] == 'failed at step 2 of 4'
  assert float(rows['dpo loss=dpo beta=0.1 seed=2']['samples/kl']) == 4.0


def test_intervals_are_over_seeds(out):
  runs = report.find_runs([out])
  from alignax.report.groups import group

  (g,) = [g for g in group(runs) if g.name.startswith('dpo loss=ipo beta=0.1')]
  assert g.last('samples/total') == bootstrap([0.54, 0.541, 0.542])
  (sft,) = [g for g in group(runs) if g.name == 'sft (3 seeds)']
  assert sft.last('samples/total') is None


class TestEqualKL:
  PATH = [(1.0, 0.5), (4.0, 0.7), (4.0, 0.9), (3.0, 0.0)]

  @pytest.mark.parametrize(
    'kl, reward', [(1, 0.5), (2.25, 0.6), (4, 0.7), (0.9, None), (4.1, None)]
  )
  def test_rewards_are_interpolated_and_never_beyond(self, kl, reward):
    found = matched.at_kl(self.PATH, kl, slack=1.0)
    assert found == (reward and pytest.approx(reward))

  def test_what_is_far_from_all_evaluations_is_missing(self):
    assert matched.at_kl(self.PATH, 2.25, slack=0.2) is None  # 1.5 of 1 to 2.
    assert matched.at_kl(self.PATH, 1.1, slack=0.2)

  def test_a_seed_is_the_mean_of_its_runs_that_went_so_far(self):
    short, flat = [(0, 0.5), (1.5, 0.5)], [(0, 1.0), (9, 1.0)]
    of_seed = lambda paths: matched.of_seed(paths, 2.25, slack=9.0)
    assert of_seed([self.PATH, short, flat]) == pytest.approx(0.8)
    assert of_seed([short]) is None

  def test_levels_are_within_what_most_reach(self):
    runs = {'a': {0: [[(0, 0), (9.7, 1)]]}, 'b': {0: [[(4.1, 1)]]},
            'c': {0: [[(1.0, 1)]]}}  # fmt: skip
    found = matched.levels(runs)
    assert found and max(found) <= 4.1 and min(found) > 0
