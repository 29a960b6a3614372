"""The share of instructions that responses followed, and what training added.

  python -m experiments.smollm2.followed BEFORE.jsonl ... -- AFTER.jsonl ...

Files of `alignax generate` on the same prompts, one a seed. The difference is
paired by prompt: its interval is over prompts.
"""

import collections
import sys

import numpy as np

from alignax.evals.intervals import bootstrap, paired
from alignax.rewards.ifeval import follows, ifeval
from experiments.smollm2.prepare import read


def main(arguments: list[str]):
  cut = arguments.index('--')
  before, after = (
    [read(path) for path in paths]
    for paths in (arguments[:cut], arguments[cut + 1 :])
  )
  for metric in ('total', 'all'):
    values = [by_prompt(files, metric) for files in (before, after)]
    for name, found in zip(('before', 'after'), values):
      print(f'{metric:<6}{name:<8}{shown(bootstrap(found))}')
    print(f'{metric:<6}{"gain":<8}{shown(paired(*values[::-1]))}')
  kinds = [by_kind(files) for files in (before, after)]
  for kind in sorted(kinds[0]):
    old, new = (found[kind] for found in kinds)
    print(f'  {kind:<45}{np.mean(old):.2f} -> {np.mean(new):.2f}')


def by_prompt(files, metric: str) -> np.ndarray:
  """The mean over files of what each prompt got."""
  scores = [[ifeval(row, row['response'])[metric] for row in f] for f in files]
  return np.mean(scores, axis=0)


def by_kind(files) -> dict[str, list[bool]]:
  found = collections.defaultdict(list)
  for row in (row for file in files for row in file):
    for name, given in zip(row['instruction_id_list'], row['kwargs']):
      found[name].append(follows(name, given, row['response']))
  return found


def shown(e) -> str:
  return f'{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]'


if __name__ == '__main__':
  main(sys.argv[1:])
