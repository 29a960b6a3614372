"""From tokens on devices to text and rows, and back to one score a row."""

import jax
import numpy as np
import tiny_worlds as worlds
from jax.experimental import multihost_utils

from alignax import rewards, sharding
from alignax.data import synthetic
from alignax.rewards.host import texts_of

TOKENIZER = synthetic.make_tokenizer()
DATA = [{'name': f'row {i}'} for i in range(20)]


def batch(texts, prompt='cat dog'):
  """Rollout rows with these responses, each with the row 2i + 1."""
  asked = TOKENIZER(prompt)['input_ids']
  length = 12
  rows = {
    'targets': np.zeros((len(texts), length), np.int32),
    'mask': np.zeros((len(texts), length), bool),
    'row': np.arange(len(texts), dtype=np.int32) * 2 + 1,
  }
  for i, text in enumerate(texts):
    said = TOKENIZER(text)['input_ids'] + [TOKENIZER.eos_token_id]
    start = len(asked) - 1
    rows['targets'][i, : start + len(said)] = [*asked[1:], *said]
    rows['mask'][i, start : start + len(said)] = bool(text)
  return rows


def test_responses_are_text_without_special_tokens():
  texts, asked = texts_of(batch(['dog cat', '', 'yes']), TOKENIZER, DATA)
  assert texts == ['dog cat', '', 'yes']  # An empty one is there, too.
  assert [row['name'] for row in asked] == ['row 1', 'row 3', 'row 5']


def test_a_score_of_text_is_a_score_function():
  seen = []

  def score_texts(rows, texts):
    seen.append((rows, texts))
    counts = np.array([len(text.split()) for text in texts])
    return counts, {'named': np.array([int(r['name'][4:]) for r in rows])}

  score_fn = rewards.on_host(score_texts, TOKENIZER, DATA)
  scores, parts = score_fn({}, batch(['dog cat', '', 'yes']))
  np.testing.assert_array_equal(scores, [2, 0, 1])
  np.testing.assert_array_equal(parts['named'], [1, 3, 5])
  assert scores.dtype == np.float32


def test_hosts_share_the_work(monkeypatch):
  """Each scores its part, in order; together they have all of them."""
  parts, rows = [], batch(['yes', 'cat dog', 'no', 'dog cat cat', 'cat'])
  lengths = lambda rows, texts: (np.array([len(t) for t in texts]), {})
  want, _ = rewards.on_host(lengths, TOKENIZER, DATA)({}, rows)

  def gather(own, tiled):
    assert tiled
    parts.append(own)
    return own

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(multihost_utils, 'process_allgather', gather)
  for host in range(2):
    monkeypatch.setattr(jax, 'process_index', lambda host=host: host)
    rewards.on_host(lengths, TOKENIZER, DATA)({}, rows)
  assert [len(part) for part in parts] == [3, 3]  # Of equal shape, as it must.
  np.testing.assert_array_equal(np.concatenate(parts)[:5], want)


def test_rows_may_live_on_many_devices():
  rows = batch(['dog cat', 'yes', 'no', 'cat'] * 2)
  placed = sharding.shard_batch(worlds.make_mesh((4, 2, 1)), rows)
  texts, asked = texts_of(placed, TOKENIZER, DATA)
  assert texts == ['dog cat', 'yes', 'no', 'cat'] * 2
  assert [row['name'] for row in asked] == [
    f'row {2 * i + 1}' for i in range(8)
  ]
