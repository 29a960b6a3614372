"""Tokenizers, the ends of responses, and which rows are held out."""

import types

import jax
import numpy as np
import pytest

from alignax import data, lora, models, reading
from alignax.data import synthetic
from alignax.models import adapters
from configs import common


def tokenizer_with(**special):
  """Two words and an end of text, which may be the unknown token as well."""
  from tokenizers import Tokenizer
  from tokenizers import models as kinds
  from transformers import PreTrainedTokenizerFast

  words = ['<end>', 'a', 'b', *special.pop('more', ())]
  vocab = {word: i for i, word in enumerate(words)}
  model = kinds.WordLevel(vocab, unk_token=special.get('unk_token', '<none>'))
  return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **special)


class TestStopIds:
  def test_the_end_of_text_may_be_the_unknown_token(self):
    found = tokenizer_with(eos_token='<end>', unk_token='<end>')
    assert reading.stop_ids(found) == (0,)

  def test_the_end_of_a_turn_where_there_is_one(self):
    found = tokenizer_with(eos_token='<end>', more=['<|im_end|>'])
    assert reading.stop_ids(found) == (0, 3)

  def test_what_the_template_ends_a_turn_with(self):
    found = tokenizer_with(eos_token='<end>', unk_token='a')
    found.add_tokens(['<|over|>'], special_tokens=True)
    found.chat_template = (
      "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}"
      "{% if m['role'] == 'assistant' %}{{ '<|over|>' }}{% endif %}"
      "{% endfor %}{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
    )
    over = found.convert_tokens_to_ids('<|over|>')
    assert reading.stop_ids(found) == (0, over)
    found.chat_template = "{{ raise_exception('for nobody') }}"
    assert reading.stop_ids(found) == (0,)

  def test_the_unknown_token_is_none(self):
    found = tokenizer_with(unk_token='a')
    assert reading.stop_ids(found) == ()


class TestTokenizerOf:
  def config(self, **given):
    given = dict(tokenizer='', init_from='') | given
    roles = types.SimpleNamespace(teacher='')
    rows = types.SimpleNamespace(template='')
    return types.SimpleNamespace(role_from=roles, data=rows, **given)

  @pytest.fixture
  def adapted(self, tmp_path):
    """Adapters without a tokenizer, and their base, which has one."""
    tokenizer = synthetic.make_tokenizer()
    config = models.Config(
      vocab_size=len(tokenizer), width=16, depth=1, num_heads=2,
      num_kv_heads=2, head_dim=8, mlp_width=16,
    )  # fmt: skip
    model = models.Model(config)
    params = model.init(jax.random.key(0))
    models.save(tmp_path / 'base', model, params, tokenizer=tokenizer)
    settings = lora.Lora(rank=2)
    shapes = adapters.abstract(config, settings)
    tree = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    origin = models.Origin(settings, str(tmp_path / 'base'))
    models.save_adapters(tmp_path / 'adapters', model, origin, tree)
    return tmp_path / 'adapters', tokenizer

  def test_adapters_have_that_of_their_base(self, adapted):
    where, tokenizer = adapted
    assert not (where / 'tokenizer.json').exists()
    for config in (
      self.config(init_from=str(where)),
      self.config(tokenizer=str(where.parent / 'base')),
    ):
      found = reading.load_tokenizer(config)
      assert found.get_vocab() == tokenizer.get_vocab()

  def test_a_teacher_of_adapters_is_compared(self, adapted):
    where, _ = adapted
    config = self.config(tokenizer='synthetic')
    config.role_from.teacher = str(where)
    assert reading.load_tokenizer(config)


class TestLoadPtx:
  def config(self, tmp_path, on_bad_row):
    config, _ = common.base()
    rows = tmp_path / 'rows.jsonl'
    rows.write_text('{"text": "the cat"}\n' * 9 + '{"text": 3}\n')
    config.data.update(
      ptx_path=str(rows), ptx_batch_size=1, length=16, on_bad_row=on_bad_row
    )
    return config

  def test_bad_rows_are_skipped_or_raised_as_those_of_the_data(self, tmp_path):
    tokenizer = synthetic.make_tokenizer()
    _, report = reading.load_ptx(self.config(tmp_path, 'skip'), tokenizer)
    assert (report.examples, report.counts['malformed']) == (9, 1)
    with pytest.raises(data.RowError, match="rows.jsonl:10: field 'text'"):
      reading.load_ptx(self.config(tmp_path, 'raise'), tokenizer)


def test_held_out_rows_may_be_of_a_split_of_their_own(tmp_path):
  config, _ = common.base()
  path = tmp_path / 'rows.jsonl'
  path.write_text(''.join(f'{{"text": "{i}"}}\n' for i in range(9)))
  config.data.update(path=str(path), split='[:6]')
  read = lambda *args, **kw: [
    int(row['text']) for row in reading.read_rows(config.data, *args, **kw)
  ]
  assert read(split=config.data.split) == [0, 1, 2, 3, 4, 5]
  assert read(f'{path}?split=[-3:]') == [6, 7, 8]


class TestSplitRows:
  def rows(self, *sizes, weights=None):
    weights = weights or [None] * len(sizes)
    return data.Rows(
      data.rows.Source(f's{i}', [{'n': n} for n in range(size)],
                       range(1, size + 1), 'text', weight)
      for i, (size, weight) in enumerate(zip(sizes, weights))
    )  # fmt: skip

  def sizes(self, rows):
    return [len(source.rows) for source in rows.sources]

  def test_the_last_rows_of_a_single_source(self):
    train, heldout = reading.split_rows(self.rows(10), 3)
    assert [row['n'] for row in train] == list(range(7))
    assert [heldout.where(i) for i in range(3)] == ['s0:8', 's0:9', 's0:10']

  def test_every_source_gives_its_share(self):
    train, heldout = reading.split_rows(self.rows(1000, 80), 100)
    assert self.sizes(heldout) == [93, 7]
    assert self.sizes(train) == [907, 73]
    assert heldout.where(92) == 's0:1000' and heldout.where(93) == 's1:74'

  @pytest.mark.parametrize('heldout', [1, 2, 5, 12])
  def test_shares_add_up(self, heldout):
    train, rest = reading.split_rows(self.rows(3, 1, 9), heldout)
    assert len(rest) == heldout and len(train) == 13 - heldout
    assert all(
      a + b == n
      for a, b, n in zip(self.sizes(train), self.sizes(rest), (3, 1, 9))
    )

  def test_held_out_rows_have_no_weights(self):
    rows = self.rows(100, 1, weights=[1.0, 3.0])
    train, heldout = reading.split_rows(rows, 10)
    assert train.weights == [1.0, 3.0] and self.sizes(train) == [90, 1]
    # Some sources may have none of them, and all of the others count once.
    assert heldout.weights is None

  def test_more_than_there_are(self):
    with pytest.raises(ValueError, match='only 13 rows'):
      reading.split_rows(self.rows(3, 1, 9), 13)
