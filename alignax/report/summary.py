"""What a page says of runs: tables, curves, and samples side by side."""

import csv
import io
import json
import re
from collections.abc import Sequence

from alignax.evals.intervals import Estimate, bootstrap, paired
from alignax.report import charts, matched, page
from alignax.report.runs import Run, comparable, unseeded

# In every line, about the run and not the model.
COUNTERS = ('step', 'seconds', 'tokens')
# First where there is room for a few, in this order; a name or an ending.
IMPORTANT = (
  'probes/total', 'probes/kl_exact', 'samples/total', 'samples/reward',
  'heldout/accuracy', 'rewards/accuracy',
  'objective/score', 'heldout/loss', 'objective/kl', 'samples/kl',
  'samples/correct', 'samples/length', 'loss', 'margin', 'entropy', 'grad_norm',
)  # fmt: skip
COLUMNS = 8
# (reward, KL): where both were measured, one is shown against the other.
FRONTIERS = (
  ('probes/total', 'probes/kl_exact'),
  ('probes/reward', 'probes/kl_exact'),
  ('samples/total', 'samples/kl'),
  ('samples/reward', 'samples/kl'),
  ('objective/score', 'objective/kl'),
)
SAMPLES = 24


class Group:
  """Runs that differ by their seed only."""

  def __init__(self, runs: Sequence[Run]):
    self.runs = runs
    self.name = _common_name([run.name for run in runs])
    self._last = [run.last() for run in runs]

  def last(self, metric: str) -> Estimate | float | None:
    """The last value; over seeds, the mean and its interval."""
    values = [v[metric] for v in self._last if v.get(metric) is not None]
    if len(values) > 1:
      return bootstrap(values)
    if not values:
      return None
    known = self.runs[0].estimates.get(metric) if len(self.runs) == 1 else None
    if known is None:
      return values[0]
    low, high = (float('nan') if known[k] is None else known[k]
                 for k in ('low', 'high'))  # fmt: skip
    return Estimate(known['mean'], low, high, known['n'])

  def by_seed(self, metric: str) -> dict[int, float]:
    """The last value of every seed that has one."""
    return {
      run.config.get('seed', i): values[metric]
      for i, (run, values) in enumerate(zip(self.runs, self._last))
      if values.get(metric) is not None
    }

  def curve(self, metric: str) -> list[tuple[float, ...]]:
    """Of one run, or the mean and the range over seeds at every step."""
    if len(self.runs) == 1:
      return self.runs[0].curve(metric)
    at = {}
    for run in self.runs:
      for step, value in dict(run.curve(metric)).items():
        at.setdefault(step, []).append(value)
    return [
      (step, sum(v) / len(v), min(v), max(v))
      for step, v in sorted(at.items())
      if len(v) == len(self.runs)
    ]


def group(runs: Sequence[Run]) -> list[Group]:
  """Runs that differ by their seed only, together."""
  found = {}
  for run in runs:
    same = json.dumps(comparable(run.config), sort_keys=True)
    found.setdefault(same, []).append(run)
  # The same seed twice is the same run twice, not a sample of two.
  groups = []
  for members in found.values():
    seeds = [run.config.get('seed') for run in members]
    whole = len(set(seeds)) == len(seeds)
    groups += [Group(members)] if whole else [Group([run]) for run in members]
  return groups


def _common_name(names: list[str]) -> str:
  if len(names) == 1:
    return names[0]
  short = set(map(unseeded, names))
  name = short.pop() if len(short) == 1 else names[0]
  return f'{name} ({len(names)} seeds)'


def sections(
  runs: Sequence[Run],
  *,
  baseline: str | None = None,
  by: Sequence[str] = (),
) -> list[page.Section]:
  """Everything there is to say; what no run has is left out.

  Args:
    runs: from `find_runs`.
    baseline: name of a run or group that the others are compared with; or of
      what runs are the same `by`.
    by: keys of the config; runs that agree on them are points of one frontier.
  """
  groups = group(runs)
  names = metric_names(runs)
  found = [_summary(groups, names), _unfinished(runs)]
  if baseline and baseline not in matched.methods(groups, by):
    found.append(_against(groups, names, baseline))
  found += [_curves(groups, names), _frontier(groups)]
  if by:
    found += matched.sections(groups, FRONTIERS, by, baseline=baseline)
  found += [_samples(groups), _configs(groups), _everything(groups, names)]
  return [section for section in found if section is not None]


def metric_names(runs: Sequence[Run]) -> list[str]:
  """All that was measured, the important first."""
  names = {name for run in runs for line in run.lines for name in line}

  def rank(name):
    for i, wanted in enumerate(IMPORTANT):
      if name == wanted or name.endswith(f'/{wanted}'):
        return i, name
    return len(IMPORTANT), name

  return sorted(names - set(COUNTERS), key=rank)


def _summary(groups, names):
  rows = []
  for g in groups:
    row = {'run': g.name, 'status': _status(g)}
    row |= {name: g.last(name) for name in names[:COLUMNS]}
    seconds = [run.last().get('seconds') for run in g.runs]
    known = [s for s in seconds if s is not None]
    row['seconds'] = round(sum(known) / len(known)) if known else None
    rows.append(row)
  return page.table(
    'Summary',
    rows,
    note='Last values. Under a mean, its interval: over seeds, or over '
    'held-out rows where one run was evaluated.',
  )


def _unfinished(runs):
  """What is not done, why, and what runs it alone."""
  rows = [
    {'run': run.name, 'status': run.status, 'last error': run.error or None,
     'alone': run.command or None}
    for run in runs if not run.finished
  ]  # fmt: skip
  if not rows:
    return None
  columns = [c for c in rows[0] if any(row[c] for row in rows)]
  return page.table(
    'Not finished',
    rows,
    columns=columns,
    note='What they measured counts above as far as it goes. Of a run of a '
    'sweep, the command that goes on with it alone is shown.',
  )


def _status(g: Group) -> str:
  states = [run.status for run in g.runs]
  if len(set(states)) == 1:
    return states[0]
  return '; '.join(
    f'{run.name}: {state}'
    for run, state in zip(g.runs, states)
    if state != 'done'
  )


def _against(groups, names, baseline: str):
  base = find_baseline(groups, baseline)
  rows = []
  for g in groups:
    if g is base:
      continue
    row = {'run': g.name}
    for name in names[:COLUMNS]:
      ours, theirs = g.by_seed(name), base.by_seed(name)
      both = [seed for seed in ours if seed in theirs]
      if both:
        row[name] = paired([ours[s] for s in both], [theirs[s] for s in both])
    rows.append(row)
  columns = ['run', *names[:COLUMNS]]
  return page.table(
    f'Against {base.name}',
    rows,
    columns=columns,
    note='Difference of last values, seed by seed; one seed has no interval.',
  )


def find_baseline(groups, baseline: str) -> Group:
  for g in groups:
    if baseline == g.name or baseline in [run.name for run in g.runs]:
      return g
    if baseline == re.sub(r' \(\d+ seeds\)$', '', g.name):
      return g
  raise ValueError(
    f'There is no run {baseline!r} to compare with; there are '
    f'{", ".join(g.name for g in groups)}.'
  )


def _curves(groups, names):
  drawn = {}
  for name in names:
    curves = {g.name: g.curve(name) for g in groups}
    if any(len(points) > 1 for points in curves.values()):
      drawn[name] = {k: points for k, points in curves.items() if points}
  if not drawn:
    return None
  seeds = any(len(g.runs) > 1 for g in groups)
  note = 'Mean and range over seeds.' if seeds else ''
  names = [g.name for g in groups]
  return charts.curves('Learning curves', drawn, note=note, names=names)


def _frontier(groups):
  drawn = {}
  for reward, kl in FRONTIERS:
    curves = {g.name: _against_kl(g, reward, kl) for g in groups}
    curves = {name: points for name, points in curves.items() if points}
    if curves:
      drawn[f'{reward} against {kl}'] = curves
  if not drawn:
    return None
  note = 'How much reward a run has at what distance from where it started.'
  names = [g.name for g in groups]
  return charts.frontier('Reward against KL', drawn, note=note, names=names)


def _against_kl(g: Group, reward: str, kl: str):
  """(KL, reward) at every step where all seeds have both."""
  rewards, kls = ({p[0]: p[1] for p in g.curve(m)} for m in (reward, kl))
  return [(kls[s], rewards[s]) for s in sorted(rewards) if s in kls]


def _samples(groups):
  """The last responses of every run, prompt by prompt; of the first seed."""
  prompts, several = {}, len(groups) > 1
  for g in groups:
    run = g.runs[0]
    written = [s for s in run.samples if 'response' in s]
    steps = sorted({s['step'] for s in written})
    # Of a single run, what it wrote at first is what to compare with.
    for step in steps[-1:] if several else sorted({*steps[:1], *steps[-1:]}):
      column = g.name if several else f'step {step}'
      for sample in written:
        if sample['step'] == step:
          card = prompts.setdefault(sample['prompt'], ({}, {}))
          card[0][column] = sample['response']
          card[1][column] = _scores(sample)
  cards = [
    {'prompt': prompt, 'responses': responses, 'scores': scores}
    for prompt, (responses, scores) in prompts.items()
  ]
  cards.sort(key=lambda card: -len(card['responses']))
  if not cards:
    return None
  return page.samples('Samples', cards[:SAMPLES])


def _scores(sample):
  scores = sample.get('scores')
  found = dict(scores) if isinstance(scores, dict) else {}
  if 'total' in found:
    found = {'score': found['total']}
  if sample.get('reward') is not None:
    found['reward'] = sample['reward']
  return found


def _configs(groups):
  """Keys that not all runs agree on."""
  if len(groups) < 2:
    return None
  configs = [comparable(g.runs[0].config) for g in groups]
  keys = sorted({key for config in configs for key in config})
  rows = []
  for key in keys:
    values = [config.get(key) for config in configs]
    if any(v != values[0] for v in values):
      shown = [None if v is None else str(v) for v in values]
      shown = ["''" if v == '' else v for v in shown]
      rows.append({'key': key} | dict(zip((g.name for g in groups), shown)))
  if not rows:
    return None
  return page.table('Config differences', rows)


def _everything(groups, names):
  rows = [
    {'metric': name} | {g.name: g.last(name) for g in groups} for name in names
  ]
  if not rows:
    return None
  section = page.table('All metrics', rows)
  folded = f'<details><summary>{len(rows)} metrics</summary>{section.html}'
  return section._replace(html=f'{folded}</details>')


def to_csv(runs: Sequence[Run]) -> str:
  """A line a run, a column a metric; what is missing is empty."""
  names = metric_names(runs)
  file = io.StringIO()
  columns = ['run', 'status', 'seed', *COUNTERS, *names]
  writer = csv.DictWriter(file, columns, restval='', extrasaction='ignore')
  writer.writeheader()
  for run in runs:
    row = {'run': run.name, 'status': run.status}
    row['seed'] = run.config.get('seed', '')
    writer.writerow(row | run.last())
  return file.getvalue()


def to_markdown(runs: Sequence[Run]) -> str:
  """The summary as a Markdown table; it reads well as plain text too."""
  groups, names = group(runs), metric_names(runs)[:COLUMNS]
  rows = [['run', 'status', *names]]
  rows += [
    [g.name, _status(g), *(_plain(g.last(name)) for name in names)]
    for g in groups
  ]
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = [
    '| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths)) + ' |'
    for row in rows
  ]
  lines.insert(1, '|' + '|'.join('-' * (w + 2) for w in widths) + '|')
  return '\n'.join(lines) + '\n'


def _plain(value) -> str:
  if page.missing(value):
    return '–'
  if not isinstance(value, tuple):
    return page.number(value)
  mean, interval = page.estimate(*value[:3])
  return f'{mean} ({interval})' if interval else mean
