"""The page that compares runs, on runs that no training made."""

import csv
import html.parser
import io
import json
import re
import shutil
import subprocess

import fake_runs
import pytest

from alignax import report
from alignax.cli import main
from alignax.evals.intervals import Estimate
from alignax.report import charts, page
from alignax.report import runs as runs_module


class Page(html.parser.HTMLParser):
  """Tags that are open, addresses, and text."""

  VOID = ('meta', 'link', 'br', 'img')

  def __init__(self, source):
    super().__init__()
    self.open, self.addresses, self.words = [], [], []
    self.feed(source)

  def handle_starttag(self, tag, attributes):
    if tag not in self.VOID:
      self.open.append(tag)
    self.addresses += [v for k, v in attributes if k in ('src', 'href')]

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_startendtag(self, tag, attributes):
    pass

  def handle_data(self, data):
    if self.open and self.open[-1] not in ('style', 'script'):
      self.words.append(data)

  @property
  def text(self):
    return ' '.join(self.words).replace('\u200b', '')


@pytest.fixture
def sweep(tmp_path):
  fake_runs.write_sweep(tmp_path / 'sweep')
  return tmp_path / 'sweep'


def test_page_is_one_file_and_well_formed(sweep, tmp_path, capsys):
  path = tmp_path / 'page.html'
  assert main(['report', str(sweep), f'--output={path}']) == 0
  source = path.read_text()
  found = Page(source)
  assert not found.open
  assert all(a.startswith('#') for a in found.addresses)
  assert 'http' not in source.replace('http://www.w3.org/2000/svg', '')
  for word in ('Learning curves', 'Reward against KL', 'Config differences'):
    assert word in found.text
  assert 'dpo (3 seeds)' in capsys.readouterr().out


def test_a_text_of_the_model_stays_text(sweep, tmp_path):
  source = report.write(
    tmp_path / 'p.html', '<b>', *report.sections(report.find_runs([sweep]))
  ).read_text()
  assert '<b>bold' not in source
  assert '&lt;b&gt;bold' in source


def test_seeds_are_one_line_and_missing_is_no_zero(sweep):
  runs = report.find_runs([sweep])
  lines = report.to_markdown(runs).split('\n\n')[0].splitlines()
  cells = {
    row[1].strip(): [c.strip() for c in row[1:-1]]
    for row in (line.split('|') for line in lines[2:])
  }
  assert set(cells) == {'broken', 'dpo (3 seeds)', 'ppo (3 seeds)', 'sft'}
  names = [c.strip() for c in lines[0].split('|')[1:-1]]
  assert cells['sft'][names.index('samples/kl')] == '–'
  assert ' to ' in cells['ppo (3 seeds)'][names.index('samples/total')]


def test_a_run_that_died_is_listed_where_it_ended(sweep, tmp_path):
  runs = report.find_runs([sweep])
  assert {r.name: r.status for r in runs}['broken'] == 'ended at step 7 of 40'
  path = tmp_path / 'page.html'
  main(['report', str(sweep), f'--output={path}'])
  assert 'Did not finish: broken' in Page(path.read_text()).text


def test_a_run_that_died_at_its_start(tmp_path):
  fake_runs.write_run(tmp_path / 'a', until=0)
  (tmp_path / 'a' / 'metrics.jsonl').unlink()
  (run,) = report.find_runs([tmp_path])
  assert run.status == 'nothing measured'
  assert report.sections([run])


def test_lines_cut_by_a_kill_are_left_out(tmp_path):
  fake_runs.write_run(tmp_path / 'a')
  for name in ('metrics.jsonl', 'samples.jsonl'):
    path = tmp_path / 'a' / name
    path.write_text(path.read_text()[:-20])
  (run,) = report.find_runs([tmp_path])
  assert run.step == 39


def test_differences_are_paired_by_seed(sweep):
  runs = report.find_runs([sweep])
  found = report.sections(runs, baseline='dpo')
  (against,) = [s for s in found if s.title.startswith('Against')]
  row = re.search(r'<tr><th scope="row">ppo.*?</tr>', against.html)[0]
  first = re.search(r'data-sort="([^"]+)" title="n = 3"', row)
  by_name = {r.name: r.last().get('samples/total') for r in runs}
  mean = sum(by_name[f'ppo-s{i}'] - by_name[f'dpo-s{i}'] for i in range(3)) / 3
  assert float(first[1]) == pytest.approx(mean)


def test_runs_of_one_seed_have_a_baseline_too(tmp_path):
  for i, name in enumerate(('dpo', 'ppo')):
    fake_runs.write_run(tmp_path / name, algorithm=name, gain=0.3 + i)
  runs = report.find_runs([tmp_path])
  found = report.sections(runs, baseline='dpo')
  (against,) = [s for s in found if s.title == 'Against dpo']
  rows = re.findall(r'<th scope="row">(\w+)', against.html)
  assert rows == ['ppo']


def test_unknown_baseline_is_named(sweep, capsys):
  assert main(['report', str(sweep), '--baseline=grpo']) == 1
  assert "no run 'grpo'" in capsys.readouterr().err


def test_no_run_is_said(tmp_path, capsys):
  assert main(['report', str(tmp_path)]) == 1
  assert 'holds no run' in capsys.readouterr().err


def test_csv_has_every_run_and_leaves_missing_empty(sweep, tmp_path):
  path = tmp_path / 'runs.csv'
  out = tmp_path / 'p.html'
  main(['report', str(sweep), f'--csv={path}', f'--output={out}'])
  rows = {row['run']: row for row in csv.DictReader(path.open())}
  assert len(rows) == 8
  assert rows['sft']['samples/kl'] == ''
  assert float(rows['dpo-s0']['samples/kl']) == 2.0


def test_an_evaluated_run_shows_its_interval(tmp_path):
  fake_runs.write_run(tmp_path / 'a')
  metric = {'mean': 0.8, 'low': 0.7, 'high': 0.9, 'n': 64}
  (tmp_path / 'a' / 'eval.json').write_text(
    json.dumps({'step': 40, 'metrics': {'samples/total': metric}})
  )
  text = report.to_markdown(report.find_runs([tmp_path]))
  assert '0.80 (0.70 to 0.90)' in text


def test_a_run_that_went_back_is_what_it_went_back_to(tmp_path):
  fake_runs.write_run(tmp_path / 'a')
  note = {'step': 10, 'reason': 'monitor.stop warned at step 40'}
  (tmp_path / 'a' / 'ended.json').write_text(json.dumps(note))
  metric = {'mean': 0.8, 'low': 0.7, 'high': 0.9, 'n': 64}
  evaluation = {'step': 10, 'metrics': {'samples/total': metric}}
  (tmp_path / 'a' / 'eval.json').write_text(json.dumps(evaluation))
  (run,) = report.find_runs([tmp_path])
  assert run.last()['step'] == 10
  assert run.last()['samples/kl'] == 0.5
  assert len(run.curve('samples/kl')) == 40  # Why it went back.
  assert run.finished and 'went back to step 10' in run.status
  assert '0.80 (0.70 to 0.90)' in report.to_markdown([run])
  (row,) = csv.DictReader(io.StringIO(report.to_csv([run])))
  assert (row['step'], row['samples/kl']) == ('10', '0.5')
  (shown,) = [s for s in report.sections([run]) if s.title == 'Samples']
  assert 'dpo 10:' in shown.html and 'dpo 20:' not in shown.html


def test_a_run_is_done_by_its_checkpoint_between_two_lines(tmp_path):
  fake_runs.write_run(tmp_path / 'a', total=45, until=40)
  fake_runs.write_run(tmp_path / 'b', total=45, until=40)
  (tmp_path / 'a' / 'checkpoints' / '45').mkdir(parents=True)
  (tmp_path / 'b' / 'checkpoints' / '40').mkdir(parents=True)
  metric = {'mean': 0.8, 'low': 0.7, 'high': 0.9, 'n': 64}
  evaluation = {'step': 45, 'metrics': {'samples/total': metric}}
  (tmp_path / 'a' / 'eval.json').write_text(json.dumps(evaluation))
  a, b = report.find_runs([tmp_path])
  assert a.finished and a.estimates
  assert not b.finished


def change_last(path, **values):
  *lines, last = (path / 'metrics.jsonl').read_text().splitlines()
  changed = json.dumps(json.loads(last) | values)
  (path / 'metrics.jsonl').write_text('\n'.join([*lines, changed]) + '\n')


def test_what_is_not_finite_is_not_missing(sweep, tmp_path):
  change_last(sweep / 'ppo-s1', loss=float('nan'))
  change_last(sweep / 'dpo-s1', grad_norm=float('inf'))
  change_last(sweep / 'sft', loss=float('nan'), grad_norm=float('inf'))
  runs = report.find_runs([sweep])
  text = report.to_markdown(runs, baseline='dpo')
  summary, _, against, *_ = text.split('\n\n')
  row = lambda part, name: next(
    line for line in part.splitlines() if line.startswith(f'| {name} ')
  )
  assert 'NaN in 1 of 3 seeds' in row(summary, 'ppo')
  assert 'inf in 1 of 3 seeds' in row(summary, 'dpo')
  assert '| NaN' in row(summary, 'sft')
  assert 'NaN in 1 of 3 seeds' in row(against, 'ppo')
  html = report.sections(runs)[0].html
  assert 'data-sort="Infinity"' in html
  assert 'data-sort="inf"' not in html


def test_intervals_of_few_seeds_are_said_to_be_narrow(tmp_path):
  for seed in range(6):
    fake_runs.write_run(tmp_path / f'dpo-s{seed}', seed=seed)
  runs = report.find_runs([tmp_path])
  assert 'too narrow' not in report.sections(runs)[0].html
  assert 'too narrow' in report.sections(runs[:5])[0].html
  assert 'too narrow' not in report.sections(runs[:1])[0].html


def test_markdown_has_differences_and_what_is_not_finished(sweep, tmp_path):
  path = tmp_path / 'runs.md'
  main(['report', str(sweep), '--baseline=dpo', f'--markdown={path}'])
  text = path.read_text()
  _, against = text.split('Against dpo (3 seeds), seed by seed:')
  row = re.search(r'^\| ppo \(3 seeds\).*', against, re.MULTILINE)[0]
  assert re.search(r'0\.\d+ \(0\.\d+ to 0\.\d+\)', row)
  assert '- broken: ended at step 7 of 40' in text


def test_groups_as_csv_have_their_intervals(sweep, tmp_path):
  path = tmp_path / 'groups.csv'
  assert main(['report', str(sweep), f'--groups={path}']) == 0
  rows = {row['run']: row for row in csv.DictReader(path.open())}
  row = rows['ppo (3 seeds)']
  low, mean, high = (
    float(row[f'samples/total{end}']) for end in ('/low', '', '/high')
  )
  assert low < mean < high and row['samples/total/n'] == '3'
  assert rows['sft']['samples/kl'] == rows['sft']['samples/kl/n'] == ''


def test_a_key_that_no_run_has_is_named(sweep, capsys):
  assert main(['report', str(sweep), '--by=algorithm_kw.bet']) == 1
  error = capsys.readouterr().err
  assert "'algorithm_kw.bet'" in error
  assert "did you mean 'algorithm_kw.beta'" in error
  assert main(['report', str(sweep), '--by=beta']) == 1
  assert "did you mean 'algorithm_kw.beta'" in capsys.readouterr().err


@pytest.mark.parametrize(
  'name, short',
  [
    ('sft-s3', 'sft'), ('sft/2', 'sft'), ('sft seed=3', 'sft'),
    ('proxy on 4,000', 'proxy on 4,000'), ('dpo 0.1', 'dpo 0.1'),
    ('dpo beta=0.1', 'dpo beta=0.1'),
  ],
)  # fmt: skip
def test_what_of_a_name_is_its_seed(name, short):
  assert runs_module.unseeded(name) == short


def test_a_source_is_called_by_all_of_its_name(tmp_path):
  """A single one has no seed to tell; of several, that is left out."""

  def write(name, source, beta, seed=0):
    fake_runs.write_run(tmp_path / name, beta=beta, seed=seed)
    config = json.loads((tmp_path / name / 'config.json').read_text())
    config['init_from'] = source and str(tmp_path / source)
    (tmp_path / name / 'config.json').write_text(json.dumps(config))

  for seed in range(2):
    write(f'sft-{seed}', '', 0.0, seed)
    write(f'c-{seed}', f'sft-{seed}', 0.5, seed)
  write('proxy of width 128', '', 1.0)
  write('a', 'proxy of width 128', 0.1)
  runs = {run.name: run for run in report.find_runs([tmp_path])}
  source = lambda name: runs[name].config['init_from'].rsplit(' ', 1)[0]
  assert source('a') == 'proxy of width 128'
  assert source('c-0') == source('c-1') == 'sft'
  assert runs['c-0'].config['init_from'] == runs['c-1'].config['init_from']


def test_api_with_plain_data(tmp_path):
  path = report.write(
    tmp_path / 'page.html',
    'Stages',
    report.text('Story', 'Once.'),
    report.table(
      'Summary',
      [{'stage': 'SFT', 'gold': 0.7, 'KL': None}, {'stage': 'PPO', 'KL': 1.5},
       {'stage': 'DPO', 'gold': Estimate(0.75, 0.7, 0.8, 200)}],
    ),
    report.curves('One', {'PPO': [(0, 1.0), (1, float('nan')), (2, 3.0)]}),
    report.frontier('Price', {'gold': {'PPO': [(0.1, 0.5)], 'DPO': []}}),
    report.samples('Said', [
      {'prompt': 'hi', 'responses': {'SFT': 'hello', 'PPO': ''},
       'scores': {'SFT': {'gold': 1.0}}},
    ]),
  )  # fmt: skip
  found = Page(path.read_text())
  assert not found.open
  assert 'nan' not in found.text.lower()
  assert '0.70 to 0.80' in found.text


@pytest.mark.parametrize(
  'low, high, expected',
  [
    (0, 1, ['0.00', '0.25', '0.50', '0.75', '1.00']),
    (0.52, 0.94, ['0.4', '0.6', '0.8', '1.0']),
    (0, 40000, ['0', '10k', '20k', '30k', '40k']),
    (3, 3, None),
  ],
)
def test_ticks_are_round_and_enclose(low, high, expected):
  found = charts.ticks(low, high)
  assert found[0] <= low
  assert found[-1] >= high
  labels = [charts.tick(t, found) for t in found]
  assert len(set(labels)) == len(labels)
  assert expected is None or labels == expected


@pytest.mark.parametrize(
  'value, text',
  [
    (0.0, '0'), (12345, '12,345'), (0.01234567, '0.01235'),
    (1.5e-5, '1.50e-05'), (999.94, '999.9'), (float('inf'), 'inf'),
    (True, 'yes'),
  ],
)  # fmt: skip
def test_numbers_have_four_figures(value, text):
  assert page.number(value) == text


@pytest.mark.parametrize(
  'values, mean, interval',
  [
    ((0.2852, 0.2333, 0.3433), '0.29', '0.23 to 0.34'),
    ((95.5, 92.53, 98.44), '95.5', '92.5 to 98.4'),
    ((-3.6e-8, -2.6e-7, 2e-7), '0.0000', ''),
    ((3.2e-7, 3e-7, 3.4e-7), '3.20e-07', '3.00e-07 to 3.40e-07'),
    ((1500.0, 1200.0, 1800.0), '1,500', '1,200 to 1,800'),
    ((2.0, 2.0, 2.0), '2', ''),
  ],
)
def test_intervals_say_how_many_figures_count(values, mean, interval):
  assert page.estimate(*values) == (mean, interval)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('chromium'), reason='needs chromium')
def test_page_works_in_a_browser(sweep, tmp_path):
  path = report.write(
    tmp_path / 'p.html', 'Page', *report.sections(report.find_runs([sweep]))
  )
  # A click on the third heading must sort, highest first, missing last; the
  # pointer over a chart must show the values there.
  click = (
    '<script>document.querySelectorAll("th button")[2].click();'
    'const chart = document.querySelector("svg.chart");'
    'const box = chart.getBoundingClientRect();'
    'chart.dispatchEvent(new PointerEvent("pointermove", '
    '{clientX: box.right - 20, clientY: box.top + 50}));'
    'document.title = [...document.querySelector("tbody").rows]'
    '.map((r) => r.cells[0].textContent).join("|") + " # " + '
    'document.getElementById("tip").textContent;</script></body>'
  )
  path.write_text(path.read_text().replace('</body>', click))
  result = subprocess.run(
    ['chromium', '--headless', '--no-sandbox', '--disable-gpu',
     '--disable-background-networking', '--disable-quic', '--no-first-run',
     '--disable-component-update', '--disable-sync',
     f'--user-data-dir={tmp_path / "profile"}', '--dump-dom', path.as_uri()],
    capture_output=True, text=True, timeout=120, check=True,
  )  # fmt: skip
  title = re.search('<title>(.*?)</title>', result.stdout)[1]
  order, tip = title.split(' # ')
  assert order == 'ppo (3 seeds)|dpo (3 seeds)|broken|sft'
  assert re.match(r'step \d+.*ppo \(3 seeds\) 0\.\d+', tip)
