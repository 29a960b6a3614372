"""The summary of runs for other programs: CSV, and Markdown."""

import csv
import io
from collections.abc import Sequence

from alignax.report import page
from alignax.report.groups import group, warning
from alignax.report.runs import Run
from alignax.report.summary import (
  COLUMNS,
  COUNTERS,
  against,
  alone,
  has_differences,
  metric_names,
  status,
)


def to_csv(runs: Sequence[Run]) -> str:
  """A line a run, a column a metric; what is missing is empty."""
  names = metric_names(runs)
  columns = ['run', 'status', 'seed', *COUNTERS, *names]
  rows = []
  for run in runs:
    row = {'run': run.name, 'status': run.status}
    row['seed'] = run.config.get('seed', '')
    rows.append(row | run.last())
  return _csv(columns, rows)


def to_group_csv(runs: Sequence[Run]) -> str:
  """A line a group of seeds; of a metric its mean, interval and number.

  The number is of the seeds that have it, of which there are `seeds`; of a
  single run, of what it was evaluated on.
  """
  names = metric_names(runs)
  parts = ('', '/low', '/high', '/n')
  cells = [f'{name}{part}' for name in names for part in parts]
  columns = ['run', 'status', 'seeds', *cells]
  rows = []
  for g in group(runs):
    row = {'run': g.name, 'status': status(g), 'seeds': len(g.runs)}
    for name in names:
      value = g.last(name)
      value = value if isinstance(value, tuple) else (value, None, None, None)
      value = [None if page.missing(v) else v for v in value]
      row |= {f'{name}{part}': v for part, v in zip(parts, value)}
    rows.append(row)
  return _csv(columns, rows)


def _csv(columns, rows) -> str:
  file = io.StringIO()
  writer = csv.DictWriter(file, columns, restval='', extrasaction='ignore')
  writer.writeheader()
  writer.writerows(rows)
  return file.getvalue()


def to_markdown(
  runs: Sequence[Run], *, baseline: str | None = None, by: Sequence[str] = ()
) -> str:
  """The summary, differences from a baseline, and what is not finished.

  It reads well as plain text too. Arguments are those of `sections`.
  """
  groups, names = group(runs), metric_names(runs)[:COLUMNS]
  rows = [
    [g.name, status(g), *(_plain(g.last(name)) for name in names)]
    for g in groups
  ]
  parts = [_table(['run', 'status', *names], rows)]
  if has_differences(groups, baseline, by):
    base, found = against(groups, names, baseline)
    rows = [[r['run'], *(_plain(r.get(name)) for name in names)] for r in found]
    parts += [f'Against {base}, seed by seed:\n', _table(['run', *names], rows)]
  if note := warning(groups):
    parts.append(f'{note}\n')
  if broken := [run for run in runs if not run.finished]:
    parts += ['Not finished:\n', ''.join(map(_unfinished, broken))]
  return '\n'.join(parts)


def _table(head, rows) -> str:
  rows = [[c.replace('|', '\\|') for c in row] for row in [head, *rows]]
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = [
    '| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths)) + ' |'
    for row in rows
  ]
  lines.insert(1, '|' + '|'.join('-' * (w + 2) for w in widths) + '|')
  return '\n'.join(lines) + '\n'


def _unfinished(run: Run) -> str:
  error = f': {" ".join(run.error.split())}' if run.error else ''
  lines = [f'- {run.name}: {run.status}{error}']
  if text := alone(run):
    lines.append(f'  `{text}`' if run.command else f'  {text}')
  return '\n'.join(lines) + '\n'


def _plain(value) -> str:
  if page.missing(value):
    return '–'
  if isinstance(value, str):
    return value
  if not isinstance(value, tuple):
    return page.number(value)
  mean, interval = page.estimate(*value[:3])
  said = '; '.join(filter(None, [interval, page.part(value)]))
  return f'{mean} ({said})' if said else mean
