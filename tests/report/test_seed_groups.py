"""Seeds as one: which of them count, and that no two groups have one name."""

import csv
import dataclasses
import io
import json
import re

import fake_runs
import pytest

from alignax import report
from alignax.report.groups import group


def write_seeds(path, *, until=None, **kw):
  """Three seeds of two algorithms; of PPO's, the last ends at `until`."""
  for seed in range(3):
    fake_runs.write_run(path / f'dpo-s{seed}', seed=seed)
    fake_runs.write_run(
      path / f'ppo-s{seed}', algorithm='ppo', seed=seed, gain=0.5,
      until=until if seed == 2 else None, **kw,
    )  # fmt: skip


def die_at_start(path):
  for name in ('metrics.jsonl', 'samples.jsonl'):
    (path / name).unlink()


def change_config(path, **values):
  config = json.loads((path / 'config.json').read_text())
  (path / 'config.json').write_text(json.dumps(config | values))


def section(runs, title, **kw):
  (found,) = [s for s in report.sections(runs, **kw) if s.title == title]
  return found.html.replace('\u200b', '')


def cells(text, name):
  """Of a Markdown table, those of a row by column."""
  split = lambda line: [c.strip() for c in line.split('|')[1:-1]]
  head, *rows = [line for line in text.splitlines() if line.startswith('|')]
  (row,) = [r for r in map(split, rows) if r[0] == name]
  return dict(zip(split(head), row))


def test_a_seed_that_died_is_not_in_the_means(tmp_path):
  write_seeds(tmp_path, until=10)
  runs = report.find_runs([tmp_path])
  last = {run.name: run.last()['samples/total'] for run in runs}
  text = report.to_markdown(runs, baseline='dpo')
  summary, against = text.split('Against dpo')
  for part in (summary, against):
    assert cells(part, 'ppo (3 seeds)')['samples/total'].endswith(
      '; 2 of 3 seeds)'
    )
  assert 'of 3 seeds' not in cells(summary, 'dpo (3 seeds)')['samples/total']
  page = section(runs, 'Against dpo (3 seeds)', baseline='dpo')
  mean = sum(last[f'ppo-s{i}'] - last[f'dpo-s{i}'] for i in range(2)) / 2
  assert f'data-sort="{mean}" title="n = 2"' in page
  assert '<small>2 of 3 seeds</small>' in page


def test_a_baseline_is_of_seeds_that_are_done_too(tmp_path):
  write_seeds(tmp_path, until=10)
  text = report.to_markdown(report.find_runs([tmp_path]), baseline='ppo')
  against = cells(text.split('Against ppo')[1], 'dpo (3 seeds)')
  assert '2 of 3 seeds' in against['samples/total']


def test_where_no_seed_is_done_all_count_but_against_nothing(tmp_path):
  for seed in range(2):
    fake_runs.write_run(tmp_path / f'dpo-s{seed}', seed=seed)
    fake_runs.write_run(
      tmp_path / f'ppo-s{seed}', algorithm='ppo', seed=seed, until=7 + seed
    )
  runs = report.find_runs([tmp_path])
  summary, against = report.to_markdown(runs, baseline='dpo').split('Against')
  assert ' to ' in cells(summary, 'ppo (2 seeds)')['samples/total']
  assert cells(against, 'ppo (2 seeds)')['samples/total'] == '–'


@pytest.mark.parametrize('total', [40, 60])  # Done, and all still on the way.
@pytest.mark.parametrize('seed', [0, 2])
def test_a_seed_without_a_metric_hides_no_other(tmp_path, total, seed):
  write_seeds(tmp_path)
  for i in range(3):
    change_config(tmp_path / f'dpo-s{i}', total_steps=total)
  die_at_start(tmp_path / f'dpo-s{seed}')
  runs = report.find_runs([tmp_path])
  (dpo,) = [g for g in group(runs) if g.name == 'dpo (3 seeds)']
  assert len(dpo.curve('loss')) == 40
  for title in ('Learning curves', 'Reward against KL', 'Samples'):
    assert 'dpo (3 seeds)' in section(runs, title)


def test_a_metric_that_few_seeds_have_says_how_many(tmp_path):
  for seed in range(3):
    fake_runs.write_run(tmp_path / f'dpo-s{seed}', seed=seed, kl=seed == 1)
  fake_runs.write_run(tmp_path / 'ppo', algorithm='ppo')
  runs = report.find_runs([tmp_path])
  row = cells(report.to_markdown(runs), 'dpo (3 seeds)')
  assert row['samples/kl'] == '2 (1 of 3 seeds)'
  assert 'of 3 seeds' not in row['loss']
  assert '2<small>1 of 3 seeds</small>' in section(runs, 'Summary')
  assert '2<small>1 of 3 seeds</small>' in section(runs, 'All metrics')
  table = csv.DictReader(io.StringIO(report.to_group_csv(runs)))
  row = {line['run']: line for line in table}['dpo (3 seeds)']
  assert (row['seeds'], row['samples/kl/n'], row['loss/n']) == ('3', '1', '3')
  assert row['samples/kl/low'] == ''  # One has no interval.


def test_groups_of_one_name_are_told_apart(tmp_path):
  for i, (beta, seed) in enumerate([(0.1, 0), (0.1, 1), (0.3, 0), (0.3, 1)]):
    fake_runs.write_run(tmp_path / f'dpo_{i}', seed=seed, beta=beta, gain=beta)
  runs = report.find_runs([tmp_path])
  names = [f'dpo, algorithm_kw.beta {beta} (2 seeds)' for beta in (0.1, 0.3)]
  assert [g.name for g in group(runs)] == names
  curves = section(runs, 'Learning curves')
  assert curves.count('<li>') == 2
  for title in ('Reward against KL', 'Samples', 'Config differences'):
    assert all(name in section(runs, title) for name in names)
  text = report.to_markdown(runs, baseline='dpo, algorithm_kw.beta 0.1')
  assert f'Against {names[0]}' in text
  with pytest.raises(ValueError, match='no run .dpo.'):
    report.to_markdown(runs, baseline='dpo')


def test_the_same_run_of_two_sweeps_is_told_apart_by_its_place(tmp_path):
  for place in ('a', 'b'):
    fake_runs.write_run(tmp_path / place / 'dpo')
    change_config(tmp_path / place / 'dpo', init_from='sft')
  runs = [
    dataclasses.replace(run, name='dpo') for run in report.find_runs([tmp_path])
  ]
  names = [str(tmp_path / place / 'dpo') for place in ('a', 'b')]
  assert [g.name for g in group(runs)] == names


def test_a_run_that_never_started_differs_in_nothing_known(tmp_path):
  for beta in (0.1, 0.3):
    fake_runs.write_run(tmp_path / f'beta={beta}', beta=beta)
  runs = report.find_runs([tmp_path])
  waiting = dataclasses.replace(
    runs[0], name='waits', config={'total_steps': 40}, lines=[], samples=[],
    state='waiting',
  )  # fmt: skip
  html = section([*runs, waiting], 'Config differences')
  rows = re.findall(r'<th scope="row">([^<]+)', html)
  assert rows == ['algorithm_kw.beta']
  assert 'waits' not in html


@pytest.mark.parametrize(
  'reward',
  [
    lambda rm: dict(kind='model', source=rm('0')),
    lambda rm: dict(kind='model', members=[rm('0'), rm('1')]),
  ],
)
def test_seeds_of_a_reward_model_are_of_one_group(tmp_path, reward):
  for seed in range(3):
    rm = lambda n, seed=seed: str(tmp_path / f'rm{n}-s{seed}')
    for n in (0, 1):
      fake_runs.write_run(tmp_path / f'rm{n}-s{seed}', algorithm='reward',
                          seed=seed, beta=float(n))  # fmt: skip
      change_config(tmp_path / f'rm{n}-s{seed}', init_from='')
    fake_runs.write_run(tmp_path / f'ppo-s{seed}', algorithm='ppo', seed=seed)
    change_config(
      tmp_path / f'ppo-s{seed}', init_from='', rewards={'judge': reward(rm)}
    )
  groups = group(report.find_runs([tmp_path]))
  assert sorted(g.name for g in groups) == [
    'ppo (3 seeds)', 'rm0 (3 seeds)', 'rm1 (3 seeds)',
  ]  # fmt: skip
  (ppo,) = [g for g in groups if g.name.startswith('ppo')]
  assert 'rm0 (' in str(ppo.runs[0].config)
