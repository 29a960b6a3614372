"""Samples: what is asked of them before a run, and from where they start."""

import numpy as np
import pytest

from alignax.cli import configs
from alignax.data.examples import Example
from alignax.evals import samples


def config(scorer='', **sampling):
  found = configs.load('configs/sft.py:size=tiny')
  with found.unlocked():
    found.evals.sampling.update(sampling)
    found.evals.scorer = scorer or found.evals.scorer
  return found


class TestCheck:
  def test_what_is_there_is_accepted(self):
    samples.check(config())
    samples.check(config(top_p=0.9))
    without = config()
    without.evals.scorer = ''
    samples.check(without)

  def test_an_unknown_key_is_named_with_the_nearest(self):
    with pytest.raises(
      ValueError,
      match=r"evals.sampling.temprature is unknown; did you mean 'temperature'",
    ):
      samples.check(config(temprature=1.0))

  @pytest.mark.parametrize('scorer, said', [
    ('gold_score', "'gold_score'; give a dotted name"),
    ('my_lab.score', "'my_lab.score' is not found: No module named 'my_lab'"),
    ('alignax.data.synthetic.gold_scor',
     "no scorer 'gold_scor' in alignax.data.synthetic; did you mean "
     'alignax.data.synthetic.gold_score?'),
  ])  # fmt: skip
  def test_a_scorer_that_is_none_is_named(self, scorer, said):
    with pytest.raises(ValueError) as error:
      samples.check(config(scorer))
    assert said in str(error.value)


class TestPromptTokens:
  @pytest.mark.parametrize('learned, length', [
    ([0, 0, 1, 1, 0, 1], 2),  # A conversation.
    ([0, 0, 0, 0, 0, 0], 6),  # A prompt.
    ([0, 1, 1, 1, 1, 1], 1),  # Raw text after a beginning token.
    ([1] * 8, 2),  # And without one.
    ([1, 1, 1], 1),
  ])  # fmt: skip
  def test_never_is_nothing(self, learned, length):
    tokens = np.arange(5, 5 + len(learned), dtype=np.int32)
    example = Example((tokens,), (np.array(learned, bool),), row=0)
    found = samples.prompt_tokens(example)
    np.testing.assert_array_equal(found, tokens[:length])
