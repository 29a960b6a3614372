"""`alignax report`: compare runs on one page.

  alignax report runs/sft runs/dpo runs/ppo --output=report.html
  alignax report runs/ --baseline=dpo --csv=runs.csv --markdown=runs.md

A DIR is a run, a sweep, or holds runs at any depth. Runs that differ by their
seed only are one line, with the mean and its 95 % interval; --baseline adds
differences from a run, seed by seed. --by=algorithm_kw.loss makes one frontier
of reward against KL of all runs with the same loss, and compares rewards at
equal KL. The page is one file, which needs no network.
"""

import argparse
import pathlib


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
    prog='alignax report',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('directories', nargs='+', metavar='DIR', help='runs, or what holds some')
  add('--output', help='the page; default: report.html in the first DIR')
  add('--csv', help='write all last values there as well, a line a run')
  add('--groups', metavar='CSV', help='write means over seeds there as well, '
      'with their intervals, a line a group')  # fmt: skip
  add('--markdown', help='write there as well: the summary, differences from '
      'the baseline, and what is not finished')  # fmt: skip
  add('--baseline', help='name of the run that others are compared with')
  add('--by', default='', metavar='KEY[,KEY]',
      help='runs that agree on these keys are one frontier')  # fmt: skip
  add('--title', default='', help='heading of the page')
  args = parser.parse_args(argv)

  from alignax import report

  runs = report.find_runs(args.directories)
  compared = dict(
    baseline=args.baseline, by=[k for k in args.by.split(',') if k]
  )
  sections = report.sections(runs, **compared)
  summary = report.to_markdown(runs, **compared)
  print(summary)
  for path, text in (
    (args.csv, lambda: report.to_csv(runs)),
    (args.groups, lambda: report.to_group_csv(runs)),
    (args.markdown, lambda: summary),
  ):
    if path:
      pathlib.Path(path).write_text(text(), encoding='utf-8')
      print(path)
  output = args.output or pathlib.Path(args.directories[0]) / 'report.html'
  title = args.title or _title(args, runs)
  print(report.write(output, title, *sections, lead=_lead(runs)))
  return 0


def _title(args, runs) -> str:
  if len(runs) == 1:
    return f'Run {runs[0].name}'
  return f'{len(runs)} runs in {", ".join(map(_name, args.directories))}'


def _name(directory: str) -> str:
  return pathlib.Path(directory).absolute().name


def _lead(runs) -> str:
  """Which runs are not whole, so that nobody takes them for it."""
  broken = [f'{run.name} ({run.status})' for run in runs if not run.finished]
  text = f'Did not finish: {", ".join(broken)}.' if broken else ''
  for run in runs:
    for name in run.also:
      text += f' {name} has the config of {run.name}, and was run once as it.'
  return text.strip()
