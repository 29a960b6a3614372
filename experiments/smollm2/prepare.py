"""Writes the rows that the runs on SmolLM2 learn from and are measured on.

  python -m experiments.smollm2.prepare ultrafeedback train_clean.jsonl \
      runs/data/gaps.jsonl
  python -m experiments.smollm2.prepare ifeval input_data.jsonl runs/data

Of UltraFeedback, pairs whose ratings are a point or more apart; the last 160,
which are held out, three or more. Of IFEval, prompts that ask for nothing but a
form (no commas, all lowercase, in quotation marks, ...), which a small model
can learn to keep in a few steps: ifeval_train.jsonl and ifeval_heldout.jsonl.
"""

import json
import pathlib
import random
import sys

HELD_OUT_PAIRS, HELD_OUT_PROMPTS = 160, 40
FORM = (
  'punctuation:', 'change_case:english', 'startend:quotation',
  'detectable_format:title', 'detectable_format:number_highlighted',
  'detectable_format:number_bullet', 'detectable_content:',
)  # fmt: skip


def read(path: str) -> list[dict]:
  with open(path, encoding='utf-8') as lines:
    return [json.loads(line) for line in lines]


def write(path, rows):
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  print(f'{path}: {len(rows)} rows')


def gap(row) -> float:
  """How far apart the raters had the two responses, of ten points."""
  rated = row['metadata']
  return rated['score_chosen'] - rated['score_rejected']


def ultrafeedback(source: str, target: str):
  rows = read(source)
  clear = [row for row in rows if gap(row) >= 3]
  near = [row for row in rows if 1 <= gap(row) < 3]
  train = near + clear[:-HELD_OUT_PAIRS]
  random.Random(0).shuffle(train)
  write(target, train + clear[-HELD_OUT_PAIRS:])


def ifeval(source: str, folder: str):
  rows = [
    row for row in read(source)
    if all(name.startswith(FORM) for name in row['instruction_id_list'])
  ]  # fmt: skip
  random.Random(0).shuffle(rows)
  write(f'{folder}/ifeval_heldout.jsonl', rows[:HELD_OUT_PROMPTS])
  write(f'{folder}/ifeval_train.jsonl', rows[HELD_OUT_PROMPTS:])


if __name__ == '__main__':
  {'ultrafeedback': ultrafeedback, 'ifeval': ifeval}[sys.argv[1]](*sys.argv[2:])
