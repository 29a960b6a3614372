"""Prompts with responses to other prompts: which, and what of them fits."""

import jax
import numpy as np
import pytest

from alignax import data
from alignax.data.mismatched import mismatched_rows


def example(prompt, response, row=0, desirable=True):
  tokens = np.array([*prompt, *response], np.int32)
  learned = np.arange(len(tokens)) >= len(prompt)
  return data.Example((tokens,), (learned,), row, desirable=desirable)


A = example([1, 2], [10, 11])
B = example([3], [20, 21, 22])
C = example([4, 5, 6], [30])


def tokens(rows):
  return [[e.tokens[0].tolist() for e in row] for row in rows]


def test_a_row_of_one_takes_the_response_of_the_next_row():
  assert tokens(mismatched_rows([[A], [B], [C]], 8)) == [
    [[1, 2, 20, 21, 22]], [[3, 30]], [[4, 5, 6, 10, 11]],
  ]  # fmt: skip


def test_only_the_response_is_learned():
  ((found,), _) = mismatched_rows([[A], [B]], 8)
  assert found.learned[0].tolist() == [False, False, True, True, True]


def test_documents_of_a_row_exchange_responses_and_need_no_more_room():
  found = mismatched_rows([[B, A, C], [example([7], [40])]], 12)
  assert tokens(found)[0] == [[3, 10, 11], [1, 2, 30], [4, 5, 6, 20, 21, 22]]
  assert sum(map(len, tokens(found)[0])) == sum(e.length for e in (A, B, C))


def test_responses_to_the_same_prompt_do_not_count_as_others():
  again = example([1, 2], [50])
  assert tokens(mismatched_rows([[A], [again], [B]], 8)) == [
    [[1, 2, 20, 21, 22]], [[1, 2, 20, 21, 22]], [[3, 10, 11]],
  ]  # fmt: skip
  assert mismatched_rows([[A], [again]], 8) == [[], []]


def test_a_lone_prompt_and_rows_of_padding_have_no_partner():
  assert mismatched_rows([[A], []], 8) == [[], []]


def test_what_does_not_fit_is_cut_at_its_end():
  assert tokens(mismatched_rows([[A], [B]], 4)) == [
    [[1, 2, 20, 21]], [[3, 10, 11]],
  ]  # fmt: skip
  # Nothing of a response fits behind C's prompt: it is left out.
  assert tokens(mismatched_rows([[C], [A]], 3)) == [[], [[1, 2, 30]]]


@pytest.fixture(scope='module')
def examples():
  rng = np.random.default_rng(0)
  found = [
    example(
      rng.integers(1, 99, rng.integers(1, 4)),
      rng.integers(1, 99, rng.integers(1, 5)),
      row,
      bool(row % 2),
    )
    for row in range(23)
  ]
  return data.Examples(found, kind='unpaired')


@pytest.mark.parametrize('packing', [False, True])
def test_a_batch_has_them_and_hosts_share_them(examples, packing):
  make = lambda index, count: data.Batches(
    examples, kind='unpaired', length=16, batch_size=4, seed=3,
    packing=packing, mismatched=True, process_index=index, process_count=count,
  )  # fmt: skip
  one, hosts = make(0, 1), [make(i, 2) for i in range(2)]
  for step in (0, 5):
    whole = one[step]
    assert 'ref_logps' not in whole['mismatched']
    joined = jax.tree.map(
      lambda *parts: np.concatenate(parts), *(host[step] for host in hosts)
    )
    jax.tree.map(np.testing.assert_array_equal, joined, whole)
    own, other = whole['inputs'], whole['mismatched']['inputs']
    assert not np.array_equal(own, other)
    if packing:  # Every row of several documents has its own tokens again.
      rows = whole['examples'].sum(1) > 1
      assert rows.any()
      np.testing.assert_array_equal(
        np.sort(own[rows], axis=1), np.sort(other[rows], axis=1)
      )
  assert not np.array_equal(one[0]['inputs'], one[5]['inputs'])


def test_other_kinds_have_none():
  pairs = data.Examples(
    [data.Example(A.tokens * 2, A.learned * 2, 0)], kind='pairs'
  )
  with pytest.raises(ValueError, match="expected 'unpaired'"):
    data.Batches(
      pairs, kind='pairs', length=8, batch_size=1, seed=0, mismatched=True
    )
