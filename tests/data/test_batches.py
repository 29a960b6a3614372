"""A batch is a function of the seed and the step, on any number of hosts."""

import itertools
from collections import Counter

import numpy as np
import pytest
from test_best_fit import random_examples

from alignax import data

KINDS = ('text', 'pairs', 'rankings', 'unpaired', 'prompts')


def make(kind='text', n=20, **kw):
  kw = dict(kind=kind, length=32, batch_size=4, seed=0) | kw
  examples = kw.pop('examples', None) or random_examples(kind, n)
  return data.Batches(examples, **kw)


def same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


SHAPES = {
  'text': {},
  'pairs': {'examples': (4, 1), 'margins': (4, 1)},
  'rankings': {'examples': (4, 1), 'ranks': (4, 1, 3)},
  'unpaired': {'examples': (4, 1), 'desirable': (4, 1)},
}
DTYPES = {
  'inputs': np.int32, 'targets': np.int32, 'segments': np.int32,
  'positions': np.int32, 'mask': bool, 'examples': bool, 'ranks': np.int32,
  'margins': np.float32, 'desirable': bool, 'row': np.int32,
}  # fmt: skip


@pytest.mark.parametrize('kind', SHAPES)
def test_the_batch_language(kind):
  batch = make(kind)[0]
  candidates = {'pairs': (2,), 'rankings': (3,)}.get(kind, ())
  tokens = ('inputs', 'targets', 'segments', 'positions', 'mask')
  shapes = dict.fromkeys(tokens, (4, *candidates, 32)) | SHAPES[kind]
  assert {k: v.shape for k, v in batch.items()} == shapes
  for name, array in batch.items():
    assert array.dtype == DTYPES[name], name
  padding = batch['segments'] == 0
  for name in ('inputs', 'targets', 'positions', 'mask'):
    assert not batch[name][padding].any()
  # A target stays within its document, and the last token has none.
  inside = batch['mask']
  for name in ('segments', 'positions'):
    now, then = batch[name], np.roll(batch[name], -1, axis=-1)
    assert ((then - now)[inside] == (name == 'positions')).all()
  then = np.roll(batch['inputs'], -1, axis=-1)
  np.testing.assert_array_equal(batch['targets'][inside], then[inside])


def test_prompts_are_padded_on_the_left():
  batches = make('prompts')
  batch = batches[0]
  assert {k: v.shape for k, v in batch.items()} == {
    'inputs': (4, 32), 'segments': (4, 32), 'positions': (4, 32), 'row': (4,)
  }  # fmt: skip
  examples = random_examples('prompts', 20)
  for i, row in enumerate(batch['row']):
    tokens = examples[row].tokens[0]
    n = len(tokens)
    np.testing.assert_array_equal(batch['inputs'][i, -n:], tokens)
    np.testing.assert_array_equal(batch['positions'][i, -n:], np.arange(n))
    assert batch['segments'][i].tolist() == [0] * (32 - n) + [1] * n


def test_rows_of_prompts_are_those_of_the_batch(qwen):
  rows = [{'prompt': f'Hello {i}', 'answer': i} for i in range(9)]
  examples, _ = data.prepare(rows, qwen, kind='prompts', length=64)
  batches = make('prompts', examples=examples, length=64)
  batch = batches[1]
  for tokens, row in zip(batch['inputs'], batch['row']):
    text = qwen.decode(tokens)
    assert f'Hello {batches.rows[row]["answer"]}<|im_end|>' in text


@pytest.mark.parametrize('kind, packing', [
  *itertools.product(KINDS[:4], (False, True)), ('prompts', False)
])  # fmt: skip
def test_reading_on_is_the_same_as_indexing(kind, packing):
  batches = make(kind, packing=packing)
  again = make(kind, packing=packing)
  for start in (0, 3):
    steps = range(start, start + 4)
    for step, batch in zip(steps, batches.iterate(start)):
      same(batch, again[step])


def test_a_batch_names_its_rows(qwen, write):
  path = write([{'prompt': f'Hello {i}'} for i in range(6)], 'a.jsonl')
  examples, _ = data.prepare(
    data.load_rows(path), qwen, kind='prompts', length=64
  )
  kw = dict(examples=examples, length=64, shuffle=False)
  batches = make('prompts', **kw)
  assert batches.where(1) == 'a.jsonl:5, a.jsonl:6, a.jsonl:1, a.jsonl:2'
  assert batches.where(0, most=1) == 'a.jsonl:1 and 3 more'
  assert make('prompts', **kw, repeat=False).where(1) == 'a.jsonl:5, a.jsonl:6'
  assert make('prompts', shuffle=False).where(0, most=1).startswith('row 0')


def test_iterating_takes_one_epoch():
  batches = make('text', n=20)
  assert len(list(batches)) == len(batches) == 5


def test_seeds_and_epochs_differ():
  order = lambda batches, steps: [
    row for step in steps for row in batches[step]['row'].tolist()
  ]
  first, second = (order(make('prompts', seed=s), range(5)) for s in (0, 1))
  later = order(make('prompts'), range(5, 10))
  assert sorted(first) == sorted(second) == sorted(later) == list(range(20))
  assert first != second and first != later
  unshuffled = make('prompts', shuffle=False)
  assert order(unshuffled, range(10)) == [*range(20)] * 2


def test_no_row_is_left_out_at_the_end_of_an_epoch():
  batches = make('prompts', n=10)
  assert len(batches) == 2
  rows = [r for step in range(5) for r in batches[step]['row'].tolist()]
  assert Counter(rows) == Counter([*range(10)] * 2)


@pytest.mark.parametrize('kind, packing', [('text', True), ('prompts', False)])
@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_together_hold_the_batch_of_one(kind, packing, hosts):
  one = make(kind, n=40, packing=packing, batch_size=8)
  parts = [
    make(kind, n=40, packing=packing, batch_size=8,
         process_index=i, process_count=hosts)
    for i in range(hosts)
  ]  # fmt: skip
  for step in (0, 1, 7):
    batches = [part[step] for part in parts]
    joined = {
      k: np.concatenate([batch[k] for batch in batches]) for k in batches[0]
    }
    same(joined, one[step])
    if kind == 'prompts':
      assert len(set(joined['row'].tolist())) == 8


@pytest.mark.parametrize('kind', KINDS)
def test_one_pass_fills_the_last_batch_with_padding(kind):
  batches = make(kind, n=10, repeat=False, shuffle=False)
  assert len(batches) == 3 and len(list(batches)) == 3
  assert len(list(batches.iterate())) == 3
  last = batches[2]
  assert not last['segments'][2:].any() and last['segments'][:2].any()
  if kind == 'prompts':
    assert last['row'].tolist() == [8, 9, -1, -1]
  else:
    assert not last['mask'][2:].any()
  if 'examples' in last:
    assert last['examples'][:, 0].tolist() == [True, True, False, False]
  with pytest.raises(IndexError, match='step 3 of 3'):
    batches[3]


def test_evaluation_may_have_fewer_rows_than_a_batch():
  batches = make('text', n=3, batch_size=8, repeat=False)
  assert len(batches) == 1 and batches[0]['inputs'].shape == (8, 32)


def mixture(weights, n=(30, 90)):
  examples = []
  for source, count in enumerate(n):
    for example in random_examples('prompts', count):
      row = example.row + 1000 * source
      examples.append(
        data.Example(example.tokens, example.learned, row=row, source=source)
      )
  return data.Examples(examples, kind='prompts', weights=weights)


def test_mixtures_are_drawn_by_weight():
  batches = make('prompts', examples=mixture([3.0, 1.0]), batch_size=8)
  rows = [r for step in range(50) for r in batches[step]['row'].tolist()]
  counts = Counter(row // 1000 for row in rows)
  assert counts == {0: 300, 1: 100}
  # The smaller source goes round; each round has every row of it once.
  first = [row for row in rows if row < 1000][:30]
  assert sorted(first) == list(range(30))
  again = make('prompts', examples=mixture([3.0, 1.0]), batch_size=8)
  same(batches[17], again[17])


def test_sources_without_weights_are_joined():
  batches = make('prompts', examples=mixture(None), batch_size=8)
  rows = [r for step in range(15) for r in batches[step]['row'].tolist()]
  assert len(set(rows)) == 120


def test_weights_of_a_mixture_reach_the_batches(qwen, write):
  rows = data.load_rows([
    dict(path=write([{'prompt': f'a {i}'} for i in range(8)], 'a.jsonl'),
         weight=1),
    dict(path=write([{'prompt': f'b {i}'} for i in range(8)], 'b.jsonl'),
         weight=7),
  ])  # fmt: skip
  examples, _ = data.prepare(rows, qwen, kind='prompts', length=64)
  batches = make('prompts', examples=examples, length=64, batch_size=8)
  for step in range(3):
    sources = [rows.source(row) for row in batches[step]['row'].tolist()]
    assert sum(sources) == 7


def test_packing_keeps_sources_apart():
  examples = [
    data.Example(e.tokens, e.learned, row=e.row, source=e.row % 2)
    for e in random_examples('text')
  ]
  batches = make('text', examples=examples, packing=True, weights=[1.0, 1.0])
  source = {tuple(e.tokens[0].tolist()): e.source for e in examples}
  for step in range(5):
    batch = batches[step]
    for tokens, segments in zip(batch['inputs'], batch['segments']):
      found = {
        source[tuple(tokens[segments == s].tolist())]
        for s in range(1, segments.max() + 1)
      }
      assert len(found) == 1


@pytest.mark.parametrize(
  'kw, message',
  [
    (dict(batch_size=40), 'batch_size 40 is larger than the data set of 20'),
    (dict(batch_size=4, process_count=3), 'a multiple of the 3 hosts'),
    (dict(batch_size=0), 'batch_size 0'),
    (dict(process_index=2, process_count=2), 'expected 0 to 1'),
    (dict(length=8), 'an example has .* prepare the data with length=8'),
    (dict(kind='sft'), "kind 'sft': expected one of text"),
    (dict(examples=data.Examples([], kind='text')), 'the data set is empty'),
    (
      dict(examples=data.Examples(random_examples('text'), kind='pairs')),
      "kind 'text', but .* kind='pairs'",
    ),
  ],
)
def test_wrong_arguments(kw, message):
  kw = dict(examples=data.Examples(random_examples('text', 20), kind='text'),
            kind='text', length=32, batch_size=4, seed=0) | kw  # fmt: skip
  with pytest.raises(ValueError, match=message):
    data.Batches(kw.pop('examples'), **kw)


def test_more_wrong_arguments():
  with pytest.raises(ValueError, match='prompts cannot be packed'):
    make('prompts', packing=True)
  with pytest.raises(ValueError, match='source 1 has a weight of 2.0 but not'):
    examples = data.Examples(random_examples('text'), kind='text')
    make('text', examples=examples, weights=[1.0, 2.0])
