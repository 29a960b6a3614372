"""Packing: as tight as the reference's, and not a token is changed by it."""

import time

import numpy as np
import pytest

from alignax import data
from alignax.data.packing import make_row

# Lengths, and how full the reference's bins of 16 are, fullest first. In the
# second case it cuts longer documents first.
GOLDENS = [
  (
    [11, 5, 9, 13, 15, 8, 9, 7, 13, 13, 7, 1, 4, 8],
    [16, 16, 16, 16, 16, 13, 13, 13, 4],
  ),
  (
    [23, 7, 15, 1, 8, 13, 22, 14, 17, 19, 18, 23, 1, 9],
    [16, 16, 16, 16, 16, 16, 16, 16, 15, 13, 8],
  ),
]


@pytest.mark.parametrize('lengths, fill', GOLDENS)
def test_best_fit_is_as_tight_as_the_reference(lengths, fill):
  lengths = np.minimum(lengths, 16)
  bins = data.best_fit(lengths, 16)
  assert sorted((int(lengths[b].sum()) for b in bins), reverse=True) == fill


def test_best_fit_against_the_definition():
  rng = np.random.default_rng(0)
  for _ in range(20):
    lengths = rng.integers(1, 21, size=60)
    rooms = []
    for length in sorted(lengths.tolist(), reverse=True):
      fitting = [i for i, room in enumerate(rooms) if room >= length]
      if fitting:
        rooms[min(fitting, key=lambda i: rooms[i])] -= length
      else:
        rooms.append(20 - length)
    bins = data.best_fit(lengths, 20)
    ours = sorted(20 - int(lengths[b].sum()) for b in bins)
    assert ours == sorted(rooms)
    assert sorted(sum(bins, [])) == list(range(60))


def test_best_fit_is_fast():
  lengths = np.random.default_rng(0).integers(1, 2048, size=100_000)
  start = time.perf_counter()
  bins = data.best_fit(lengths, 2048)
  assert time.perf_counter() - start < 5
  assert len(bins) < 1.02 * lengths.sum() / 2048


def test_best_fit_at_the_edges():
  assert data.best_fit([], 4) == []
  assert data.best_fit([4, 4], 4) == [[0], [1]]
  with pytest.raises(ValueError, match='5 tokens does not fit a row of 4'):
    data.best_fit([5], 4)


def random_examples(kind, n=40, length=24, seed=0):
  """Examples of random tokens, each with something to learn."""
  rng = np.random.default_rng(seed)
  candidates = {'pairs': 2, 'rankings': 3}.get(kind, 1)
  examples = []
  for row in range(n):
    shape = candidates - int(kind == 'rankings' and rng.random() < 0.3)
    tokens = tuple(
      rng.integers(1, 99, size=rng.integers(2, length)).astype(np.int32)
      for _ in range(shape)
    )
    learned = tuple(np.arange(len(t)) >= len(t) // 2 for t in tokens)
    labels = {
      'pairs': dict(margin=float(row)),
      'rankings': dict(ranks=tuple(range(1, shape + 1))),
      'unpaired': dict(desirable=bool(row % 2)),
    }.get(kind, {})
    examples.append(data.Example(tokens, learned, row=row, **labels))
  return examples


def documents(batch, kind):
  """Every document of a batch, cut out of its row by its segment number."""
  found = []
  add_axis = (
    (lambda x: x[:, None]) if kind in ('text', 'unpaired') else (lambda x: x)
  )
  arrays = {
    k: add_axis(batch[k])
    for k in ('inputs', 'targets', 'segments', 'positions', 'mask')
  }
  for b in range(len(arrays['inputs'])):
    for s in range(1, arrays['segments'][b].max() + 1):
      here = arrays['segments'][b] == s
      found.append(
        [
          tuple(tuple(v[b, c][here[c]].tolist()) for v in arrays.values())
          for c in range(here.shape[0])
        ]
      )
      for c in range(here.shape[0]):
        places = np.flatnonzero(here[c])
        assert (np.diff(places) == 1).all(), 'a document lies in one piece'
  return found


@pytest.mark.parametrize('kind', ['text', 'pairs', 'rankings', 'unpaired'])
def test_packed_documents_are_the_unpacked_ones(kind):
  examples = random_examples(kind)
  batches = {
    packing: data.Batches(
      examples,
      kind=kind,
      length=32,
      batch_size=1,
      seed=0,
      packing=packing,
      repeat=False,
    )
    for packing in (False, True)
  }
  # Segments are numbered by their row; everything else must be the same.
  strip = lambda document: [(c[0], c[1], c[3], c[4]) for c in document]
  found = {
    packing: sorted(strip(d) for batch in bs for d in documents(batch, kind))
    for packing, bs in batches.items()
  }
  assert found[True] == found[False]
  assert len(found[True]) == len(examples)
  assert len(batches[True]) < len(batches[False])
  assert batches[True].fill > batches[False].fill


def test_labels_follow_their_documents():
  for kind, name in (('pairs', 'margins'), ('unpaired', 'desirable')):
    examples = random_examples(kind)
    label = {'pairs': lambda e: e.margin, 'unpaired': lambda e: e.desirable}
    expected = {tuple(e.tokens[0].tolist()): label[kind](e) for e in examples}
    batches = data.Batches(
      examples,
      kind=kind,
      length=48,
      batch_size=2,
      seed=0,
      packing=True,
      repeat=False,
    )
    for batch in batches:
      first = batch['inputs'] if kind == 'unpaired' else batch['inputs'][:, 0]
      segments = batch['segments'].reshape(len(first), -1, 48)[:, 0]
      for b in range(len(first)):
        assert batch['examples'][b].sum() == segments[b].max()
        for s in range(segments[b].max()):
          tokens = tuple(first[b][segments[b] == s + 1].tolist())
          assert batch[name][b, s] == expected[tokens]
        assert not batch[name][b][~batch['examples'][b]].any()


def test_missing_candidates_have_rank_0():
  tokens = np.arange(1, 4, dtype=np.int32)
  learned = np.array([False, True, True])
  two = data.Example((tokens,) * 2, (learned,) * 2, row=0, ranks=(2, 1))
  row = make_row([two], kind='rankings', length=4, segments=2, candidates=3)
  assert row['ranks'].tolist() == [[2, 1, 0], [0, 0, 0]]
  assert row['examples'].tolist() == [True, False]
  assert not row['segments'][2].any() and not row['mask'][2].any()


def test_ref_logps_follow_their_documents():
  """Also into batches that were made before they were known."""
  examples = random_examples('pairs')
  logps = np.arange(80, dtype=np.float32).reshape(40, 2)
  batches = data.Batches(
    examples, kind='pairs', length=48, batch_size=4, seed=0, packing=True,
    repeat=False,
  )  # fmt: skip
  assert 'ref_logps' not in batches[0]
  data.attach_ref_logps(examples, logps)
  for batch in batches:
    b, s = np.nonzero(batch['examples'])
    numbers = batch['margins'][b, s].astype(int)  # The margin is the number.
    np.testing.assert_array_equal(batch['ref_logps'][b, :, s], logps[numbers])
  with pytest.raises(ValueError, match='found 3 rows, expected one for each'):
    data.attach_ref_logps(examples, logps[:3])


def test_ref_logps_of_single_and_of_several_responses():
  for kind, shape in (('unpaired', (2, 1)), ('rankings', (2, 3, 1))):
    examples = random_examples(kind, n=8)
    logps = np.arange(8 if kind == 'unpaired' else 24, dtype=np.float32)
    logps = logps.reshape(8, -1) if kind == 'rankings' else logps
    data.attach_ref_logps(examples, logps)
    batch = data.Batches(
      examples, kind=kind, length=24, batch_size=2, seed=0, shuffle=False
    )[0]
    assert batch['ref_logps'].shape == shape
    n = len(examples[1].tokens)
    found = batch['ref_logps'][1].reshape(-1)[:n]
    np.testing.assert_array_equal(found, np.atleast_1d(logps[1])[:n])
