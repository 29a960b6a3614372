"""Answers: right, wrong, and written in many ways."""

import fractions
import json
import pathlib
import sys

import pytest

from alignax.data import synthetic
from alignax.rewards import checkers

GSM8K = pathlib.Path(__file__).parents[3] / 'shared/data/gsm8k/train.jsonl'


@pytest.mark.parametrize('text, answer', [
  (r'so \boxed{\frac{1}{2}} it is', r'\frac{1}{2}'),
  (r'first \boxed{1}, no: \boxed{a_{b}}', 'a_{b}'),
  ('<think>4?</think> <answer> 5 </answer>', '5'),
  ('2 + 2 = 4\n#### 4', '4'),
  ('  plain text ', 'plain text'),
  (r'not closed \boxed{3', r'not closed \boxed{3'),
  ('', ''),
])  # fmt: skip
def test_final_answer(text, answer):
  assert checkers.final_answer(text) == answer


@pytest.mark.parametrize('text, value', [
  ('it is 1,234.5 apples', '2469/2'),
  ('1/2', '1/2'),
  ('0.5 or so', '1/2'),
  ('50 %', '1/2'),
  (r'\boxed{3\%}', '3/100'),
  (r'\boxed{-\frac{1}{3}}', '-1/3'),
  ('-3', '-3'),
  ('$-5', '-5'),
  ('5-3', '3'),  # No sign, but a difference.
  ('first 7, then 8.', '8'),
  ('.25', '1/4'),
  ('#### 72', '72'),
])  # fmt: skip
def test_numbers(text, value):
  assert checkers.to_number(text) == fractions.Fraction(value)


@pytest.mark.parametrize('text', ['', 'none', '1/0', '....', '%'])
def test_no_number(text):
  assert checkers.to_number(text) is None
  assert checkers.number({'answer': '1'}, text) == 0


class TestNumber:
  def test_is_exact(self):
    assert checkers.number({'answer': '1/3'}, '2/6') == 1
    assert checkers.number({'answer': '1/3'}, '0.3333') == 0
    assert checkers.number({'answer': 0.1}, '1/10') == 1

  def test_unless_told_otherwise(self):
    kw = dict(tolerance=0.01)
    assert checkers.number({'answer': 100}, '101', **kw) == 1
    assert checkers.number({'answer': 100}, '101.1', **kw) == 0
    assert checkers.number({'answer': -100}, '-99', **kw) == 1

  def test_several_may_be_right(self):
    row = {'solutions': ['2', '-2']}
    for response, right in (('2', 1), ('-2', 1), ('3', 0)):
      assert checkers.number(row, response, field='solutions') == right

  def test_a_row_that_cannot_be_checked(self):
    with pytest.raises(ValueError, match="no 'answer', but .'question'"):
      checkers.number({'question': '?'}, '1')
    with pytest.raises(ValueError, match="answer is 'many', which holds no"):
      checkers.number({'answer': 'many'}, '1')

  @pytest.mark.real
  @pytest.mark.skipif(not GSM8K.is_file(), reason='needs ../shared/data')
  def test_reads_every_answer_of_gsm8k(self):
    rows = [json.loads(line) for line in GSM8K.open()]
    assert len(rows) == 7473
    for row in rows:
      assert checkers.number(row, row['answer']) == 1
      plain = row['answer'].rpartition('####')[2].replace(',', '')
      assert checkers.to_number(row['answer']) == fractions.Fraction(plain)


class TestExact:
  def test_word_for_word(self):
    row = {'answer': 'New  York'}
    assert checkers.exact(row, 'so <answer>New York</answer>') == 1
    assert checkers.exact(row, 'New York is it') == 0
    assert checkers.exact(row, 'new york') == 0
    assert checkers.exact(row, 'new york', ignore_case=True) == 1
    assert checkers.exact(row, '') == 0

  def test_several_may_be_right(self):
    row = {'answer': ['cat', 'dog']}
    assert checkers.exact(row, 'dog') == 1 and checkers.exact(row, 'cow') == 0


class TestFormat:
  @pytest.mark.parametrize('text, kept', [
    ('<think>so</think><answer>4</answer>', 1),
    (' <think>a\nb</think>\n\n<answer>4</answer>\n', 1),
    ('<think>so</think><answer></answer>', 0),
    ('<think> </think><answer>4</answer>', 0),
    ('well <think>so</think><answer>4</answer>', 0),
    ('<answer>4</answer><think>so</think>', 0),
    ('<think>so<answer>4</answer>', 0),
    ('<think>a</think><think>b</think><answer>4</answer>', 0),
    ('<think>a</think><answer>4</answer><answer>5</answer>', 0),
    ('', 0),
  ])  # fmt: skip
  def test_tags(self, text, kept):
    assert checkers.format({}, text) == kept

  def test_other_tags_and_patterns(self):
    assert checkers.format({}, '<a>x</a>', tags=('a',)) == 1
    assert checkers.format({}, 'Answer: 12\n', pattern=r'Answer: \d+') == 1
    assert checkers.format({}, 'Answer: 12 !', pattern=r'Answer: \d+') == 0


class TestMath:
  @pytest.mark.parametrize('answer, response, right', [
    (r'2\sqrt{3}', r'it is $\sqrt{12}$', 1),
    ('1/2', 'so 0.5', 1),
    (r'$x^2 + 2x + 1$', r'\boxed{(x+1)^2}', 1),
    (r'\boxed{7}', 'the answer is 8', 0),
    ('x', 'no idea', 0),
    (['3', '4'], '$4$', 1),
  ])  # fmt: skip
  def test_equivalence(self, answer, response, right):
    pytest.importorskip('math_verify')
    assert checkers.math({'answer': answer}, response) == right

  def test_the_error_names_the_extra(self, monkeypatch):
    monkeypatch.setitem(sys.modules, 'math_verify', None)
    with pytest.raises(ModuleNotFoundError, match=r"alignax\[math\]'; or take"):
      checkers.math({'answer': '1'}, '1')


def test_gold_is_that_of_the_synthetic_world():
  (row,) = synthetic.rows('demonstrations', n=1, quality='clean')
  response = row['messages'][-1]['content']
  # As it comes out of the pool, where tuples have become lists.
  row = json.loads(json.dumps(row))
  assert checkers.gold(row, response)['total'] == 1
  assert checkers.gold(row, response) == synthetic.gold_score(row, response)
  assert checkers.gold(row, 'no')['total'] < 1
