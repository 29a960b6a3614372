"""The real data sets, if they lie beside the repository."""

import collections
import itertools
import json
import pathlib

import numpy as np
import pytest

from alignax import data

FOLDER = pathlib.Path(__file__).parents[3] / 'shared' / 'data'
pytestmark = [
  pytest.mark.real,
  pytest.mark.skipif(
    not FOLDER.is_dir(), reason='needs the data sets in ../shared/data'
  ),
]
SETS = [
  ('alpaca/alpaca_en_demo.json', 'alpaca', 'text'),
  ('alpaca/alpaca_en_demo.json', 'alpaca', 'prompts'),
  ('toolcall_demo/glaive_toolcall_en_demo.json', 'sharegpt', 'text'),
  ('ultrafeedback/train_clean.jsonl', 'preference', 'pairs'),
  ('preference_demo/dpo_en_demo.json', 'preference', 'pairs'),
  ('hh_rlhf/harmless_1800.jsonl', 'preference', 'pairs'),
  ('kto_demo/kto_en_demo.json', 'unpaired', 'unpaired'),
  ('ultrafeedback/train_clean.jsonl', 'preference', 'prompts'),
  ('corpora/tinyshakespeare.txt', 'text', 'text'),
]


@pytest.mark.parametrize('path, format, kind', SETS)
def test_real_data(qwen, path, format, kind):
  rows = data.load_rows(FOLDER / path)
  assert rows.sources[0].format == format
  examples, report = data.prepare(rows, qwen, kind=kind, length=1024)
  counts = report.counts
  assert counts['malformed'] < 0.01 * len(rows)
  assert counts['merged'] == 0
  used = {example.row for example in examples}
  lost = counts['malformed'] + counts['no_target'] + counts['too_long']
  assert len(used) + lost == len(rows) == report.rows
  batches = data.Batches(
    examples, kind=kind, length=1024, batch_size=4, seed=0,
    packing=kind != 'prompts',
  )  # fmt: skip
  batch = batches[len(batches)]
  assert (batch['segments'] > 0).any()
  if kind != 'prompts':
    assert batches.fill > 0.8
    assert batch['mask'].any() and not batch['mask'][..., -1].any()


@pytest.mark.parametrize('path, format, kind', SETS[:1] + SETS[2:6])
def test_learned_texts_are_the_responses(qwen, path, format, kind):
  """Read back from the raw file, by other code than the data layer's."""
  rows = data.load_rows(FOLDER / path, split='[:60]')
  examples, _ = data.prepare(rows, qwen, kind=kind, length=20_000)
  end, checked = '<|im_end|>', 0
  for example in examples:
    for tokens, mask in zip(example.tokens, example.learned):
      learned = qwen.decode(tokens[mask])
      *turns, rest = learned.split(end)
      assert turns and not rest
      source = json.dumps(rows[example.row], ensure_ascii=False)
      for turn in turns:
        if '<tool_call>' not in turn:
          text = json.dumps(turn.strip(), ensure_ascii=False)[1:-1]
          assert text in source
          checked += 1
  assert checked >= len(examples)


def test_oasst_replies_as_rankings(qwen):
  """Trees are no standard format; their ranked replies are one line away."""
  path = FOLDER / 'oasst' / 'en_100_tree.jsonl'
  rows = []
  for line in path.read_text().splitlines():
    prompt = json.loads(line)['prompt']
    replies = [r for r in prompt['replies'] if r.get('rank') is not None]
    if len({r['rank'] for r in replies}) > 1:
      rows.append({
        'prompt': prompt['text'],
        'responses': [r['text'] for r in replies],
        'ranks': [1 + r['rank'] for r in replies],
      })  # fmt: skip
  examples, report = data.prepare(rows, qwen, kind='rankings', length=2048)
  assert len(examples) > 0.9 * len(rows) > 50
  pairs, _ = data.prepare(rows, qwen, kind='pairs', length=2048)
  by_row = collections.Counter(example.row for example in pairs)
  for example in examples:
    better = sum(a != b for a, b in itertools.combinations(example.ranks, 2))
    assert by_row[example.row] == better
  batches = data.Batches(
    examples, kind='rankings', length=2048, batch_size=2, seed=0, packing=True
  )
  batch = batches[0]
  present = batch['ranks'] > 0
  assert (present.any(-1) == batch['examples']).all()
  assert np.isfinite(batches.fill)
