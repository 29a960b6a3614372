"""SFT on tool calls: what the assistant writes is learned, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignax import metrics, models, reading, run, train
from alignax.algorithms import sft
from alignax.cli import configs
from alignax.data import synthetic


def make_config(**changes):
  config = configs.load('configs/sft.py:size=tiny,world=tools')
  with config.unlocked():
    config.total_steps = 4
    config.model.update(
      width=16, depth=1, num_heads=2, num_kv_heads=2, head_dim=8, mlp_width=16,
      remat='none',
    )  # fmt: skip
    world = 'synthetic:tools?n={}&seed={}'
    config.data.update(
      path=world.format(96, 0), heldout_path=world.format(16, 1), batch_size=8,
    )  # fmt: skip
    config.evals.samples = 2
    config.evals.sampling.max_new_tokens = 8
    config.log.tensorboard = False
    config.update(changes)
  return config


@pytest.fixture(scope='module')
def batch():
  config = make_config()
  tokenizer = reading.load_tokenizer(config)
  found = reading.load_data(config, sft, {}, tokenizer)
  return found.batches[0], tokenizer


def turns(batch, tokenizer):
  """The text of every run of learned tokens, in order."""
  for targets, mask in zip(batch['targets'], batch['mask']):
    edges = np.flatnonzero(np.diff(np.pad(mask, 1)))
    for start, end in edges.reshape(-1, 2):
      yield tokenizer.decode(targets[start:end])


def test_calls_and_answers_are_learned_and_what_the_tool_says_is_not(batch):
  batch, tokenizer = batch
  found = list(turns(batch, tokenizer))
  calls, answers = found[::2], found[1::2]
  documents = batch['segments'].max(1).sum()
  assert len(calls) == len(answers) == documents
  for call, answer in zip(calls, answers):
    words = call.split()
    assert words[0] == '[' and words[1] in synthetic.TOOLS
    assert words[-2:] == [']', '<|end|>']
    assert answer.startswith('the answer is ')
    assert answer.endswith(' . <|end|>')


def test_only_these_tokens_move_the_model(batch):
  """Any other target may be another: loss and gradient stay as they are."""
  batch, _ = batch
  size = len(synthetic.make_tokenizer())
  model = models.Model(models.Config(**make_config().model, vocab_size=size))
  params = {'policy': model.init(jax.random.key(0))}
  loss_fn = sft.make_loss(model)

  @jax.jit
  @jax.value_and_grad
  def total(params, batch):
    terms = loss_fn(params, {}, batch, jax.random.key(0))
    return train.weighted_sum(terms, sft.weigh('token')(batch))[0]

  other = np.where(batch['mask'], batch['targets'], batch['targets'] + 1)
  found, want = (
    total(params, batch | {'targets': jnp.asarray(targets)})
    for targets in (other, batch['targets'])
  )
  jax.tree.map(np.testing.assert_array_equal, found, want)
  moved = np.where(batch['mask'], batch['targets'] + 1, batch['targets'])
  third, _ = total(params, batch | {'targets': jnp.asarray(moved)})
  assert abs(float(third) - float(want[0])) > 1e-4


@pytest.mark.slow
def test_it_trains_through_the_loop(tmp_path):
  run.train(make_config(), tmp_path)
  rows = metrics.read(tmp_path)
  losses = [row['loss'] for row in rows if 'loss' in row]
  assert len(losses) == 4 and losses[-1] < losses[0]
  last = [row for row in rows if 'samples/total' in row][-1]
  assert 0 <= last['samples/total'] <= last['samples/tool'] <= 1


class TestScore:
  row = {'task': 'add', 'key': 'add|3|4'}

  @pytest.mark.parametrize('text, tool, total', [
    ('[ add 3 4 ]', 1, 1), ('[ add 4 3 ]', 1, 0), ('[ count 3 4 ]', 0, 0),
    ('7', 0, 0), ('', 0, 0), ('[ add 3 4 ] 7', 1, 0),
  ])  # fmt: skip
  def test_the_right_call_is_the_right_tool_with_the_right_words(
    self, text, tool, total
  ):
    found = synthetic.tool_score(self.row, text)
    assert found == {'tool': tool, 'total': total}

  def test_the_rows_own_calls_are_right(self):
    for row in synthetic.rows('tools', n=20, seed=2):
      call = row['messages'][-3]['tool_calls'][0]['function']
      text = f'[ {call["name"]} {call["arguments"]["words"]} ]'
      assert synthetic.tool_score(row, text)['total'] == 1
      assert synthetic.gold_score(row, row['messages'][-1]['content'])[
        'correct'
      ]
