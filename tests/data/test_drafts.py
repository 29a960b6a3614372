"""Rows of every canonical type as every kind that can be made of them."""

import numpy as np
import pytest

from alignax import data
from alignax.data.examples import windows

USER = {'role': 'user', 'content': 'Hello there'}
GOOD = {'role': 'assistant', 'content': 'Red and green.'}
BAD = {'role': 'assistant', 'content': 'Blue.'}
ROWS = {
  'messages': {'messages': [USER, GOOD]},
  'preference': {'prompt': [USER], 'chosen': [GOOD], 'rejected': [BAD]},
  'rankings': {
    'prompt': 'Hello there',
    'responses': ['Red and green.', 'Blue.', 'Green.'],
    'ranks': [1, 3, 1],
  },
  'unpaired': {'prompt': [USER], 'completion': [BAD], 'label': False},
  'prompts': {'prompt': [USER]},
  'text': {'text': 'Hello there'},
}
GOOD_TEXT, BAD_TEXT = 'Red and green.<|im_end|>', 'Blue.<|im_end|>'
PROMPT = (
  '<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n'
  'Hello there<|im_end|>\n<|im_start|>assistant\n'
)


def learned(tokenizer, example):
  return [
    tokenizer.decode(tokens[mask])
    for tokens, mask in zip(example.tokens, example.learned)
  ]


def test_shift():
  batch = data.shift(
    np.array([5, 6, 7, 8], np.int32), np.array([False, False, True, True])
  )
  assert batch['inputs'].tolist() == [5, 6, 7, 8]
  assert batch['targets'].tolist() == [6, 7, 8, 0]
  assert batch['mask'].tolist() == [False, True, True, False]
  assert batch['targets'].dtype == np.int32 and batch['mask'].dtype == bool
  # The hidden state of the last token is one after the last masked position.
  assert np.flatnonzero(batch['mask'])[-1] + 1 == 3


@pytest.mark.parametrize(
  'format, kind, texts',
  [
    ('messages', 'text', [[GOOD_TEXT]]),
    ('text', 'text', [['Hello there<|im_end|>']]),
    ('preference', 'pairs', [[GOOD_TEXT, BAD_TEXT]]),
    ('preference', 'rankings', [[GOOD_TEXT, BAD_TEXT]]),
    ('preference', 'unpaired', [[GOOD_TEXT], [BAD_TEXT]]),
    (
      'rankings',
      'pairs',
      [[GOOD_TEXT, BAD_TEXT], ['Green.<|im_end|>', BAD_TEXT]],
    ),
    ('rankings', 'rankings', [[GOOD_TEXT, BAD_TEXT, 'Green.<|im_end|>']]),
    ('unpaired', 'unpaired', [[BAD_TEXT]]),
    ('prompts', 'prompts', [['']]),
    ('messages', 'prompts', [['']]),
    ('preference', 'prompts', [['']]),
    ('rankings', 'prompts', [['']]),
    ('unpaired', 'prompts', [['']]),
  ],
)
def test_kinds(qwen, format, kind, texts):
  examples, _ = data.prepare([ROWS[format]], qwen, kind=kind, length=200)
  assert [learned(qwen, e) for e in examples] == texts
  for example in examples:
    for tokens in example.tokens:
      if kind == 'prompts':
        assert qwen.decode(tokens) == PROMPT
      elif format != 'text':
        assert qwen.decode(tokens).startswith(PROMPT)


def test_labels(qwen):
  prepare = lambda format, kind: data.prepare(
    [ROWS[format]], qwen, kind=kind, length=200
  )[0]
  assert prepare('rankings', 'rankings')[0].ranks == (1, 2, 1)
  assert prepare('preference', 'rankings')[0].ranks == (1, 2)
  both = [e.desirable for e in prepare('preference', 'unpaired')]
  assert both == [True, False]
  row = ROWS['preference'] | {'margin': 0.5}
  assert data.prepare([row], qwen, kind='pairs', length=200)[0][0].margin == 0.5


@pytest.mark.parametrize(
  'format, kind',
  [
    ('preference', 'text'),
    ('messages', 'pairs'),
    ('prompts', 'rankings'),
    ('text', 'prompts'),
  ],
)
def test_kinds_that_a_row_cannot_be(qwen, format, kind):
  with pytest.raises(data.RowError, match=f"for kind '{kind}'"):
    data.prepare(
      [ROWS[format]], qwen, kind=kind, length=200, on_bad_row='raise'
    )


def test_raw_text_begins_and_ends_as_the_tokenizer_says(llama3):
  [example], _ = data.prepare([ROWS['text']], llama3, kind='text', length=99)
  text = llama3.decode(example.tokens[0])
  assert text == '<|begin_of_text|>Hello there<|eot_id|>'
  assert learned(llama3, example) == ['Hello there<|eot_id|>']


def test_a_chat_has_one_beginning_token(llama3):
  for template in ('', 'alpaca'):
    [example], _ = data.prepare(
      [ROWS['messages']], llama3, kind='text', length=99, template=template
    )
    count = example.tokens[0].tolist().count(llama3.bos_token_id)
    assert count == 1 and example.tokens[0][0] == llama3.bos_token_id


@pytest.mark.parametrize('n', [2, 3, 7, 8, 9, 20, 22])
def test_windows_learn_every_token_once(n):
  tokens, flags = np.arange(n), np.arange(n) > 0
  pieces = windows(tokens, flags, 8)
  assert max(len(t) for t, _ in pieces) <= 8
  assert min(len(t) for t, _ in pieces) >= 2
  shifted = [data.shift(t, m) for t, m in pieces]
  targets = np.concatenate([s['targets'][s['mask']] for s in shifted])
  assert targets.tolist() == list(range(1, n))


def test_template_variables_are_passed_on(qwen):
  template = (
    "{{ '<|im_start|>' + mood }}{% for m in messages %}{{ m['content'] + "
    "'<|im_end|>' }}{% endfor %}"
  )
  [example], _ = data.prepare(
    [ROWS['prompts']],
    qwen,
    kind='prompts',
    length=99,
    template=template,
    template_kw=dict(mood='calm'),
  )
  assert qwen.decode(example.tokens[0]).startswith('<|im_start|>calmHello')
