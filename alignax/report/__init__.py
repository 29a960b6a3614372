"""One page that compares runs: a file that opens from disk, with no network.

A page is made of sections, each a function of plain Python data:

  report.write(
    'report.html',
    'Four stages of a small model',
    report.table('Summary', [{'stage': 'SFT', 'gold': 0.71, 'KL': None}]),
    report.curves('Learning', {'gold score': {'PPO': [(0, 0.5), (10, 0.7)]}}),
    report.samples('Samples', [
      {'prompt': 'copy a b', 'responses': {'SFT': 'a b', 'PPO': 'a b .'},
       'scores': {'SFT': 1.0}},
    ]),
  )

What is missing (None, NaN, a key that a row lacks) is shown as missing, never
as zero. An `Estimate` of `alignax.evals.intervals` in a cell is shown with its
interval.
"""

from alignax.report.charts import curves, frontier
from alignax.report.page import Section, samples, table, text, write
from alignax.report.runs import Run, find_runs, of_plan
from alignax.report.summary import sections
from alignax.report.tabular import to_csv, to_group_csv, to_markdown

__all__ = [
  'Run',
  'Section',
  'curves',
  'find_runs',
  'frontier',
  'of_plan',
  'samples',
  'sections',
  'table',
  'text',
  'to_csv',
  'to_group_csv',
  'to_markdown',
  'write',
]
