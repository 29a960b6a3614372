"""What a page says of runs: tables, curves, and samples side by side."""

from collections.abc import Sequence

from alignax.report import charts, matched, page
from alignax.report.groups import (
  Group,
  differences,
  find_baseline,
  group,
  mean_curve,
  warning,
)
from alignax.report.runs import Run, comparable

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
  matched.check_keys(runs, by)
  names = metric_names(runs)
  found = [_summary(groups, names), _unfinished(runs)]
  if has_differences(groups, baseline, by):
    found.append(_against(groups, names, baseline))
  found += [_curves(groups, names), _frontier(groups)]
  if by:
    found += matched.sections(groups, FRONTIERS, by, baseline=baseline)
  found += [_samples(groups), _configs(groups), _everything(groups, names)]
  return [section for section in found if section is not None]


def has_differences(groups, baseline: str | None, by: Sequence[str]) -> bool:
  """Whether a baseline is a run or a group, and no method."""
  # Without keys every group is a method, and nothing is matched.
  return bool(baseline) and not (
    by and baseline in matched.methods(groups, by)
  )


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
    row = {'run': g.name, 'status': status(g)}
    row |= {name: g.last(name) for name in names[:COLUMNS]}
    seconds = [run.last().get('seconds') for run in g.counted]
    known = [s for s in seconds if s is not None]
    row['seconds'] = round(sum(known) / len(known)) if known else None
    rows.append(row)
  return page.table(
    'Summary',
    rows,
    note='Last values, of the seeds that are done if any is. Under a mean, '
    'its interval: over seeds, or over held-out rows where one run was '
    'evaluated; and how many seeds have it, if not all.',
    foot=warning(groups),
  )


def _unfinished(runs):
  """What is not done, why, and what runs it alone."""
  rows = [
    {'run': run.name, 'status': run.status, 'last error': run.error or None,
     'alone': alone(run) or None}
    for run in runs if not run.finished
  ]  # fmt: skip
  if not rows:
    return None
  columns = [c for c in rows[0] if any(row[c] for row in rows)]
  return page.table(
    'Not finished',
    rows,
    columns=columns,
    note='What they measured counts above only where no seed of theirs is '
    'done. Of a run of a sweep, the command that goes on with it alone is '
    'shown.',
  )


def alone(run: Run) -> str:
  """The command that goes on with a run, or what has to be before."""
  if run.first:
    return f'not before {", ".join(run.first)} is done'
  return run.command


def status(g: Group) -> str:
  states = [run.status for run in g.runs]
  if len(set(states)) == 1:
    return states[0]
  return '; '.join(
    f'{run.name}: {state}'
    for run, state in zip(g.runs, states)
    if state != 'done'
  )


def _against(groups, names, baseline: str):
  base, rows = against(groups, names, baseline)
  return page.table(
    f'Against {base}',
    rows,
    columns=['run', *names[:COLUMNS]],
    note='Difference of last values, seed by seed, of runs that are done; one '
    'seed has no interval.',
    foot=warning(groups),
  )


def against(groups, names, baseline: str):
  """The name of the baseline, and what every other group is above it."""
  base = find_baseline(groups, baseline)
  rows = []
  for g in groups:
    if g is base:
      continue
    row = {'run': g.name}
    # Where it has come to is not to be compared with where another ended.
    for name in names[:COLUMNS] if g.finished and base.finished else ():
      ours, theirs = g.by_seed(name), base.by_seed(name)
      pairs = [(ours[s], theirs[s]) for s in ours if s in theirs]
      row[name] = differences(pairs, len(g.runs))
    rows.append(row)
  return base.name, rows


def _curves(groups, names):
  drawn = {}
  for name in names:
    curves = {g.name: g.curve(name) for g in groups}
    if any(len(points) > 1 for points in curves.values()):
      drawn[name] = {k: points for k, points in curves.items() if points}
  if not drawn:
    return None
  note = ''
  if any(len(g.runs) > 1 for g in groups):
    note = 'Mean and range over seeds, those that are done if any is.'
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
  """(KL, reward) at every step where all seeds that have both have them."""
  runs = g.having(reward, kl)
  rewards, kls = (
    {p[0]: p[1] for p in mean_curve(runs, m)} for m in (reward, kl)
  )
  return [(kls[s], rewards[s]) for s in sorted(rewards) if s in kls]


def _samples(groups):
  """The last responses of every run, prompt by prompt; of one of its seeds."""
  prompts, several = {}, len(groups) > 1
  for g in groups:
    written = _written(g)
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


def _written(g: Group) -> list[dict]:
  """What the first seed wrote that wrote any; one may have died before."""
  for run in (*g.counted, *g.runs):
    found = [s for s in run.until_kept(run.samples) if 'response' in s]
    if found:
      return found
  return []


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
  # Of a run that never started no more is known than its plan says.
  groups = [g for g in groups if g.runs[0].config.keys() - {'total_steps'}]
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
