"""The summary of runs for other programs: CSV, and Markdown."""

import csv
import io
from collections.abc import Sequence

from alignax.report import page
from alignax.report.groups import group
from alignax.report.runs import Run
from alignax.report.summary import COLUMNS, COUNTERS, metric_names, status


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
    [g.name, status(g), *(_plain(g.last(name)) for name in names)]
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
