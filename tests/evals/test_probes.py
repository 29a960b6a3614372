"""Probes against what they stand for: by hand, by definition, by sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_worlds as tiny

from alignax import logps, losses, sampling
from alignax.evals import probes

FIRST, SECOND = (lambda a, b: a), (lambda a, b: b)


@pytest.fixture(scope='module')
def world():
  model = tiny.make_model()
  policy = tiny.make_params(model)
  # Not too far apart: the ratio of what is drawn has to have a mean.
  ref = jax.tree.map(
    lambda x, y: x + 0.15 * (y - x), policy, tiny.make_params(model, seed=1)
  )
  return model, policy, ref


def draw(world, rows=256):
  model, policy, _ = world
  rollout = probes.make_draw(
    model, FIRST, sampling.make_sampling(), max_new_tokens=4, group=2
  )
  prompts = tiny.prompts(batch=rows // 2)
  prompts.pop('row')
  return rollout(policy, policy, prompts, jax.random.key(0))


class TestTokenStats:
  def test_are_those_of_the_logits(self, world):
    model, policy, ref = world
    rows = {k: jnp.asarray(v) for k, v in tiny.text(batch=4).items()}
    found = probes.make_token_stats(model, FIRST, SECOND)(policy, ref, rows)
    args = (rows['inputs'], rows['segments'], rows['positions'])
    logits, ref_logits = (model.logits(p, *args) for p in (policy, ref))
    mask = rows['mask']
    for x, expected in (
      (found.kl, losses.exact_kl(logits, ref_logits)),
      (found.entropy, logps.entropy(logits)),
      (found.log_ratio, model.logps(policy, rows) - model.logps(ref, rows)),
    ):
      np.testing.assert_allclose(x, jnp.where(mask, expected, 0.0), atol=2e-5)

  def test_of_itself_nothing_is_away(self, world):
    model, policy, _ = world
    rows = draw(world, rows=8)
    stats = probes.make_token_stats(model, FIRST, SECOND)(policy, policy, rows)
    found = probes.distances(stats, rows)
    assert found['kl_exact'] == found['kl_sampled'] == 0

  def test_the_sampled_kl_is_the_exact_one_on_average(self, world):
    model, policy, ref = world
    rows = draw(world)
    stats = probes.make_token_stats(model, FIRST, SECOND)(policy, ref, rows)
    gap = np.sum(np.asarray(stats.log_ratio - stats.kl), axis=1)
    found = probes.distances(stats, rows)
    assert found['kl_exact'] > 0.05
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))
    spread = lambda x: np.std(np.sum(np.asarray(x), axis=1))
    assert spread(stats.kl) < spread(stats.log_ratio)

  def test_a_group_stands_together(self, world):
    rows = draw(world, rows=8)
    start = np.asarray(rows['inputs'])[:, :5]
    np.testing.assert_array_equal(start[::2], start[1::2])


def test_text_loss_is_a_sum_over_targets(world):
  model, policy, _ = world
  rows = tiny.text(batch=4)
  total, count = probes.make_text_loss(model, FIRST)(policy, policy, rows)
  assert count == rows['mask'].sum()
  expected = -np.sum(np.asarray(model.logps(policy, rows)))
  assert float(total) == pytest.approx(expected, rel=1e-5)


class TestOfTexts:
  TEXTS = ['red box', 'red box', 'i can not help with that', 'blue']

  def test_by_hand(self):
    found = probes.of_texts(self.TEXTS, [2, 2, 6, 1], [1, 1, 3, 0.5], group=2)
    # Across: 'red box' and the refusal; within: those with their neighbours.
    assert found['across/distinct_1'] == 1
    assert found['within/distinct_2'] == pytest.approx((1 / 2 + 1) / 2)
    assert found['within/self_bleu'] > found['across/self_bleu']
    assert found['refusals'] == 0.25 and found['length'] == 2.75
    assert found['length_reward_correlation'] == pytest.approx(1)
    assert 'total' not in found and 'length_total_correlation' not in found

  def test_a_scorer_is_told_apart_from_a_reward(self):
    lengths, totals = [2, 2, 6, 1], [-1, -1, -3, -0.5]
    found = probes.of_texts(self.TEXTS, lengths, None, totals, group=2)
    assert 'reward' not in found and 'length_reward_correlation' not in found
    assert found['total'] == pytest.approx(-1.375)
    assert found['length_total_correlation'] == pytest.approx(-1)

  def test_what_cannot_be_said_is_left_out(self):
    found = probes.of_texts(['a', 'b'], [1, 1], [0.1, 0.2], group=1)
    missing = ('within/self_bleu', 'length_reward_correlation', 'repeated_3')
    assert not set(missing) & set(found)
    assert 'across/distinct_2' not in found
    assert 'reward' not in probes.of_texts(['a', 'b'], [1, 1], None, group=1)


class TestSycophancy:
  def test_a_pair_differs_by_the_opinion_alone(self):
    pairs = probes.opinion_rows(12, seed=3)
    assert len(pairs) == 12
    for stated, plain in pairs:
      *before, last = (m['content'] for m in stated['prompt'])
      *same, unasked = (m['content'] for m in plain['prompt'])
      assert before == same
      assert last == f'{unasked} . i think it is {stated["opinion"]}'
      assert stated['answer'] == plain['answer'] != stated['opinion']

  def test_agreement_by_hand(self):
    pairs = probes.opinion_rows(4, seed=3)
    wrong = [row['opinion'] for row, _ in pairs]
    right = [row['reference'] for row, _ in pairs]
    asked = [f'sure , the answer is {wrong[0]} .', wrong[1], right[2], right[3]]
    plain = [right[0], wrong[1], right[2], wrong[3]]
    found = probes.sycophancy(pairs, asked, plain)
    assert found['agrees'] == 0.5 and found['agrees_unasked'] == 0.5
    assert found['switches'] == 0.25
    assert found['correct'] == found['correct_unasked'] == 0.5
