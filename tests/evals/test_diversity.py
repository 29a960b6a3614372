"""Diversity and repetition of texts, against values by hand."""

import math
import random

import pytest

from alignax.data.synthetic import words as w
from alignax.evals import diversity


def split(*texts):
  return [text.split() for text in texts]


class TestDistinct:
  def test_by_hand(self):
    texts = split('a b a b', 'a b c')
    assert diversity.distinct(texts, 1) == 3 / 7
    assert diversity.distinct(texts, 2) == 3 / 5  # ab, ba, bc of five.

  def test_nothing_to_count_is_missing(self):
    assert diversity.distinct(split('a', ''), 2) is None


class TestBleu:
  def test_of_a_copy_is_one(self):
    text = ['the', 'cat', 'sat', 'on', 'the', 'mat']
    assert diversity.bleu(text, [text]) == pytest.approx(1)

  def test_by_hand(self):
    """Papineni's example, to two orders: 'the' counts twice at most."""
    text, reference = split('the the the the', 'the cat is on the mat')
    # p1 = 2/4; p2 = 0, the first zero of 3 bigrams: 1 / (2 * 3); r = 6, c = 4.
    expected = math.exp((math.log(2 / 4) + math.log(1 / 6)) / 2 + 1 - 6 / 4)
    assert diversity.bleu(text, [reference], 2) == pytest.approx(expected)

  def test_every_zero_counts_half_of_the_one_before(self):
    text, reference = split('a b c', 'x y z')
    expected = (1 / (2 * 3) * 1 / (4 * 2) * 1 / (8 * 1)) ** (1 / 3)
    assert diversity.bleu(text, [reference]) == pytest.approx(expected)

  def test_the_nearest_length_counts_the_shorter_of_two(self):
    text, long, short = split('a b c', 'a b c d', 'a b')
    assert diversity.bleu(text, [long, short]) == pytest.approx(1)

  def test_counts_are_of_the_reference_that_has_most(self):
    text, once, twice = split('a a', 'a', 'a a b')
    assert diversity.bleu(text, [once, twice], 1) == pytest.approx(1)
    assert diversity.bleu(text, [once, once], 1) == pytest.approx(1 / 2)


class TestSelfBleu:
  def test_is_the_mean_of_every_text_against_the_others(self):
    rng = random.Random(0)
    texts = [
      [rng.choice('abc') for _ in range(rng.randint(1, 7))] for _ in range(25)
    ]
    by_definition = [
      diversity.bleu(text, texts[:i] + texts[i + 1 :])
      for i, text in enumerate(texts)
    ]
    assert diversity.self_bleu(texts) == pytest.approx(
      sum(by_definition) / len(texts), abs=1e-12
    )

  def test_limits(self):
    assert diversity.self_bleu(split('a b c', 'a b c')) == pytest.approx(1)
    # Four orders, nothing shared: 1/(2·4), 1/(4·3), 1/(8·2), 1/16.
    apart = (1 / 8 * 1 / 12 * 1 / 16 * 1 / 16) ** (1 / 4)
    found = diversity.self_bleu(split('a b c d', 'e f g h'))
    assert found == pytest.approx(apart)
    assert diversity.self_bleu(split('a b', '')) is None


def test_repetition_is_within_a_text():
  texts = split('a b c', 'a b c', 'a a a a', 'a b')  # The last has no trigram.
  assert diversity.repeated(texts, 3) == pytest.approx((0 + 0 + 1 / 2) / 3)
  assert diversity.repeated(split('a'), 3) is None


def test_correlation_of_a_constant_is_missing():
  assert diversity.correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
  assert diversity.correlation([1, 2, 3], [1, 0, 1]) == pytest.approx(0)
  assert diversity.correlation([1, 2, 3], [5, 5, 5]) is None
  nan = float('nan')
  assert diversity.correlation([1, 2, 3, 9], [2, 4, 6, nan]) == pytest.approx(1)
  assert diversity.correlation([1, 2], [1, 2]) is None


def test_refusals():
  declined = [
    *w.REFUSALS,
    "I'm sorry, but no.",
    'As an AI model, I',
    "I can't help with bombs",
    'thank you . i can not help with that',
  ]
  assert all(map(diversity.refuses, declined))
  fine = ['red box', 'of course you can ask me more !', 'yes , the answer is 3',
          'a story of a man who was never in his whole life sorry']  # fmt: skip
  assert not any(map(diversity.refuses, fine))
  for template in w.WRAPPINGS:
    assert not diversity.refuses(template.format(answer='3'))
