"""Checkers in processes: what they return, and what becomes of their faults."""

import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from alignax import rewards
from alignax.rewards import pool as pool_lib


def start(name, **kw):
  kw = dict(workers=1, timeout=30.0) | kw
  return rewards.Pool(f'own_checkers.{name}', **kw)


def scores(name, texts, *, rows=None, entry='total', on_failure=None, **kw):
  with start(name, **kw) as pool:
    score = rewards.checker_scores(pool, entry=entry, on_failure=on_failure)
    return score(rows or [{}] * len(texts), texts)


def alive(pattern):
  """Command lines of processes that hold a word."""
  found = []
  for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
      with open(f'/proc/{pid}/cmdline', 'rb') as file:
        line = file.read().replace(b'\0', b' ').decode()
      with open(f'/proc/{pid}/stat') as file:
        dead = file.read().rpartition(')')[2].split()[0] == 'Z'
    except (FileNotFoundError, ProcessLookupError):
      continue
    if pattern in line and not dead:
      found.append(line)
  return found


class TestWhatTheyReturn:
  def test_scores_come_in_order_and_of_their_own_rows(self):
    texts = ['a ' * n for n in range(12)]
    rows = [{'more': np.int32(100 * n)} for n in range(12)]  # Of a table.
    found, parts = scores(
      'words', texts, rows=rows, kw={'factor': 2}, workers=2
    )
    np.testing.assert_array_equal(found, [102 * n for n in range(12)])
    np.testing.assert_array_equal(parts['failed'], np.zeros(12))

  def test_several_numbers_one_of_which_counts(self):
    found, parts = scores('several', ['x', 'y'])
    assert list(found) == [0.5, 0.5]
    assert {k: list(v) for k, v in parts.items()} == {
      'form': [1, 1], 'style': [1, 1], 'failed': [0, 0],
    }  # fmt: skip
    found, _ = scores('several', ['x'], entry='style')
    assert list(found) == [1]

  def test_the_number_that_counts_must_be_there(self):
    with pytest.raises(pool_lib.CheckerError, match="'form', but no 'total'"):
      scores('only_form', ['x'])

  def test_what_a_checker_draws_does_not_depend_on_its_process(self):
    texts = ['one', 'two'] * 4
    one, _ = scores('drawn', texts, workers=1)
    two, _ = scores('drawn', texts[::-1], workers=2)
    np.testing.assert_array_equal(one, two[::-1])
    np.testing.assert_array_equal(one[::2], one[0])

  def test_what_a_checker_prints_is_no_answer(self):
    found, _ = scores('talks', ['x', 'y'])
    assert list(found) == [1, 1]

  def test_it_runs_in_processes_without_jax(self):
    with start('sees_jax', workers=2) as pool:
      (verdict,) = pool.check([({}, 'x')])
    assert verdict.numbers['total'] == 0
    assert verdict.numbers['pid'] != os.getpid()

  def test_processes_share_the_work(self):
    with start('pids', workers=2) as pool:
      pool.check([({}, '')] * 2)  # Both have started.
      found = pool.check([({}, '')] * 10)
    assert len({v.numbers['total'] for v in found}) == 2

  def test_nothing_to_check(self):
    found, parts = scores('words', [])
    assert found.shape == (0,) and set(parts) == {'failed'}


@pytest.fixture(scope='module')
def verdicts():
  """Every fault, and after each a response that is well."""
  texts = ['fine', 'raise', 'fine', 'hang', 'fine', 'exit', 'fine', 'text']
  with start('faulty') as pool:
    pool.check([({}, 'fine')])  # Has started, so the limit may be short.
    pool.timeout = 1.0
    begin = time.monotonic()
    found = pool.check([({}, text) for text in texts])
    seconds = time.monotonic() - begin
  return found, seconds


class TestFaults:
  def test_others_are_scored_all_the_same(self, verdicts):
    found, _ = verdicts
    for i in (0, 2, 4, 6):
      assert found[i] == pool_lib.Verdict({'total': 1.0})

  @pytest.mark.parametrize('i, failure, message', [
    (1, 'raised', "KeyError: 'no such thing'"),
    (3, 'timeout', 'no answer in 1 seconds'),
    (5, 'crashed', 'ended with code 3'),
    (7, 'raised', "'total' is str '1.0', expected a number"),
  ])  # fmt: skip
  def test_each_is_told_apart(self, verdicts, i, failure, message):
    verdict = verdicts[0][i]
    assert verdict.failure == failure and message in verdict.message
    assert not verdict.numbers

  def test_what_hangs_is_killed_with_its_children(self, verdicts):
    assert verdicts[1] < 60
    assert not alive('sleep 31537')

  def test_a_failure_has_no_score_and_is_counted(self):
    texts = ['fine', 'raise', 'nan', 'fine']
    found, parts = scores('faulty', texts)
    assert [math.isnan(x) for x in found] == [False, True, True, False]
    assert list(parts['failed']) == [0, 1, 1, 0]

  def test_or_the_score_that_it_is_given(self):
    found, parts = scores('faulty', ['fine', 'raise', 'nan'], on_failure=-2.0)
    assert list(found) == [1, -2, -2]
    assert list(parts['failed']) == [0, 1, 1]

  def test_the_first_of_a_kind_is_logged(self, caplog):
    with start('faulty') as pool:
      score = rewards.checker_scores(pool)
      for _ in range(3):
        score([{}] * 2, ['raise', 'nan'])
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert 'own_checkers.faulty' in lines[0] and 'no such thing' in lines[0]
    assert 'total is nan' in lines[1]

  def test_a_checker_that_does_not_start_stops_the_run(self):
    with pytest.raises(pool_lib.CheckerError, match='nothing.*AttributeError'):
      scores('nothing', ['x'])

  def test_a_closed_pool_leaves_no_process(self):
    pool = start('words', workers=2)
    pool.check([({}, 'x')])
    pids = [worker.process.pid for worker in pool._workers]
    pool.close()
    assert not any(os.path.exists(f'/proc/{pid}') for pid in pids)

  def test_what_hangs_ends_even_if_the_pool_is_gone(self):
    """As after a kill of the run: nobody is left to end it."""
    code = (
      'import worker; worker.SLACK = 0\n'
      'worker.check(lambda row, text: [0 for _ in iter(int, 1)],'
      " {'row': {}, 'response': ''}, {}, 0.5)"
    )
    ended = subprocess.run(
      [sys.executable, '-c', code], cwd=pool_lib.WORKER.parent, timeout=120
    )
    assert ended.returncode == -signal.SIGALRM

  @pytest.mark.parametrize('kw, match', [
    (dict(timeout=0.0), 'timeout is 0.0'),
    (dict(timeout=float('nan')), 'timeout is nan'),
    (dict(workers=-1), 'workers is -1'),
  ])  # fmt: skip
  def test_settings_that_make_no_sense(self, kw, match):
    with pytest.raises(ValueError, match=match):
      start('words', **kw)
