"""C-RLFT: weights by class, from the field of a row to the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds
import toy_models as toys

from alignax import data, train
from alignax.algorithms import c_rlft
from alignax.data import synthetic

KEY = jax.random.key(0)
MODEL = toys.Bigram()
POLICY = toys.table(0)


def make_examples(classes=(0, 1, 1, 0, 1, 1, 0, 1)):
  rng = np.random.default_rng(0)
  found = []
  for row, category in enumerate(classes):
    tokens = rng.integers(0, toys.SIZE, rng.integers(4, 8)).astype(np.int32)
    learned = np.arange(len(tokens)) >= 2
    found.append(data.Example((tokens,), (learned,), row, category=category))
  return data.Examples(found, kind='text')


def one_batch(examples, *, packing=False, classes=2):
  return data.Batches(
    examples, kind='text', length=24 if packing else 8, seed=0, classes=classes,
    packing=packing, batch_size=4 if packing else len(examples),
    shuffle=False, repeat=False,
  )[0]  # fmt: skip


def evaluate(batch, **kw):
  run = c_rlft.make_eval({'policy': MODEL}, **kw)
  return float(run({'policy': POLICY}, {}, batch, KEY)['loss'])


def run_step(batch, **kw):
  tx = optax.sgd(0.1)
  step = c_rlft.make_step({'policy': MODEL}, tx, **kw)
  state = train.init_state({'policy': jax.tree.map(jnp.array, POLICY)}, tx)
  return step(state, {}, batch, KEY)


def test_by_hand():
  batch = one_batch(make_examples())
  nll = -toys.token_logps(POLICY, batch)
  share = np.exp(np.array([2.0, 0.5])[batch['classes']] / 0.7) * batch['mask']
  want = (share * nll).sum() / share.sum()
  found = evaluate(batch, rewards=(2.0, 0.5), beta=0.7)
  assert found == pytest.approx(want, rel=1e-5)
  assert abs(found - evaluate(batch)) > 1e-3


def test_with_equal_rewards_every_token_counts_alike():
  batch = one_batch(make_examples())
  nll = -toys.token_logps(POLICY, batch)
  want = nll.sum() / batch['mask'].sum()
  found = evaluate(batch, rewards=(1.0, 1.0))
  assert found == pytest.approx(want, rel=1e-5)


def test_packed_and_in_parts_it_is_the_same_step():
  alone, packed = (
    one_batch(make_examples(), packing=packing) for packing in (False, True)
  )
  rows = [set(c[s > 0]) for c, s in zip(packed['classes'], packed['segments'])]
  assert {0, 1} in rows  # Classes share a row.
  one, row = run_step(alone)
  for batch, parts in ((packed, 1), (alone, 4)):
    two, other = run_step(batch, microbatches=parts)
    worlds.assert_trees_close(one.params, two.params, atol=1e-5)
    worlds.assert_trees_close(row, other, atol=1e-5)


class TestData:
  tokenizer = synthetic.make_tokenizer()

  def prepare(self, rows):
    return data.prepare(rows, self.tokenizer, kind='text', length=64)[0]

  def test_rows_carry_their_class_and_are_told_it(self):
    rows = synthetic.rows('classes', n=40, seed=0)
    examples = self.prepare(rows)
    assert {e.category for e in examples} == {0, 1}
    for example, row in zip(examples, rows):
      assert example.category == row['class']
      text = self.tokenizer.decode(example.tokens[0])
      told = ('right', 'wrong')[row['class']]
      assert text.startswith('<|system|>') and text.split()[1] == told

  def test_experts_are_right_and_brief(self):
    score = lambda row: synthetic.gold_score(
      row, row['messages'][-1]['content']
    )['total']
    rows = synthetic.rows('classes', n=200, seed=0)
    mean = lambda c: np.mean([score(r) for r in rows if r['class'] == c])
    assert mean(0) == 1 and mean(1) < 0.7
    assert all(
      r['class'] == 0 for r in synthetic.rows('classes', n=9, experts=1)
    )

  @pytest.mark.parametrize('value, found', [
    (2, 2), (None, None), ('gpt-4', None), (-1, None), (True, None),
  ])  # fmt: skip
  def test_a_row_without_a_class_is_named(self, value, found):
    rows = synthetic.rows('classes', n=4)
    rows[2]['class'] = value
    examples = self.prepare(rows)
    with pytest.raises(
      ValueError, match=f"rows:3: field 'class': found {found}, .* from 0 to 1"
    ):
      data.Batches(
        examples, kind='text', length=64, batch_size=2, seed=0, classes=2
      )

  def test_other_algorithms_do_not_see_it(self):
    batch = one_batch(make_examples(), classes=0)
    assert 'classes' not in batch
    assert c_rlft.batch_kw(rewards=(1, 0.5, 0.1)) == {'classes': 3}
