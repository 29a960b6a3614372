"""Every format, and what each says of a malformed row."""

import json

import pytest

from alignax import data
from alignax.data import formats

USER = {'role': 'user', 'content': 'ask'}
SYSTEM = {'role': 'system', 'content': 'be'}
GOOD = {'role': 'assistant', 'content': 'good'}
BAD = {'role': 'assistant', 'content': 'bad'}
CALL = {'name': 'add', 'arguments': {'a': 1}}
CALLS = [{'type': 'function', 'function': CALL}]
TOOL = {'name': 'add', 'description': 'adds', 'parameters': {}}


@pytest.mark.parametrize(
  'format, row, expected',
  [
    (
      'alpaca',
      {'instruction': 'ask', 'input': '', 'output': 'good'},
      {'messages': [USER, GOOD]},
    ),
    (
      'alpaca',
      {
        'instruction': 'ask',
        'input': 'this',
        'output': 'good',
        'system': 'be',
        'history': [['ask', 'bad']],
        'text': 'everything again',
      },
      {
        'messages': [
          {'role': 'system', 'content': 'be'},
          USER,
          BAD,
          {'role': 'user', 'content': 'ask\n\nthis'},
          GOOD,
        ]
      },
    ),
    (
      'completion',
      {'prompt': 'ask', 'completion': 'good'},
      {'messages': [USER, GOOD]},
    ),
    (
      'completion',
      {'prompt': [USER], 'completion': [GOOD]},
      {'messages': [USER, GOOD]},
    ),
    ('messages', {'messages': [USER, GOOD]}, {'messages': [USER, GOOD]}),
    ('messages', {'messages': [USER]}, {'prompt': [USER]}),
    (
      'messages',
      {
        'messages': [
          {'role': 'user', 'content': [{'type': 'text', 'text': 'ask'}]},
          {'role': 'assistant', 'content': None, 'tool_calls': [CALL]},
          {'role': 'tool', 'content': '2', 'name': 'add'},
          GOOD,
        ],
        'tools': json.dumps([TOOL]),
      },
      {
        'messages': [
          USER,
          {'role': 'assistant', 'content': '', 'tool_calls': CALLS},
          {'role': 'tool', 'content': '2', 'name': 'add'},
          GOOD,
        ],
        'tools': [{'type': 'function', 'function': TOOL}],
      },
    ),
    (
      'sharegpt',
      {
        'conversations': [
          {'from': 'human', 'value': 'ask'},
          {'from': 'function_call', 'value': json.dumps(CALL)},
          {'from': 'observation', 'value': '2'},
          {'from': 'gpt', 'value': 'good'},
        ],
        'system': 'be',
      },
      {
        'messages': [
          {'role': 'system', 'content': 'be'},
          USER,
          {'role': 'assistant', 'content': '', 'tool_calls': CALLS},
          {'role': 'tool', 'content': '2'},
          GOOD,
        ]
      },
    ),
    (
      'preference',
      {'prompt': 'ask', 'chosen': 'good', 'rejected': 'bad', 'margin': 2},
      {'prompt': [USER], 'chosen': [GOOD], 'rejected': [BAD], 'margin': 2.0},
    ),
    (
      'preference',  # An implicit prompt, as chat.
      {'chosen': [USER, GOOD], 'rejected': [USER, BAD]},
      {'prompt': [USER], 'chosen': [GOOD], 'rejected': [BAD]},
    ),
    (
      'preference',  # A prompt that whole conversations repeat.
      {
        'prompt': 'ask',
        'chosen': [USER, GOOD],
        'rejected': [USER, BAD],
        'score_chosen': 9.0,
        'score_rejected': 7.5,
      },
      {'prompt': [USER], 'chosen': [GOOD], 'rejected': [BAD], 'margin': 1.5},
    ),
    (
      'preference',  # An implicit prompt, as text.
      {'chosen': 'the sky is blue', 'rejected': 'the sky is black'},
      {
        'prompt': [{'role': 'user', 'content': 'the sky is'}],
        'chosen': [{'role': 'assistant', 'content': 'blue'}],
        'rejected': [{'role': 'assistant', 'content': 'black'}],
      },
    ),
    (
      'preference',  # Conversations beside the two responses.
      {
        'conversations': [{'from': 'human', 'value': 'ask'}],
        'chosen': {'from': 'gpt', 'value': 'good'},
        'rejected': {'from': 'gpt', 'value': 'bad'},
      },
      {'prompt': [USER], 'chosen': [GOOD], 'rejected': [BAD]},
    ),
    (
      'preference',  # Transcripts.
      {
        'chosen': '\n\nHuman: ask\n\nAssistant: bad\n\nHuman: ask'
        '\n\nAssistant: good',
        'rejected': '\n\nHuman: ask\n\nAssistant: bad\n\nHuman: ask'
        '\n\nAssistant: bad',
      },
      {'prompt': [USER, BAD, USER], 'chosen': [GOOD], 'rejected': [BAD]},
    ),
    (
      'preference',
      {
        'prompt': '\n\nHuman: ask\n\nAssistant:',
        'chosen': 'good',
        'rejected': 'bad',
      },
      {'prompt': [USER], 'chosen': [GOOD], 'rejected': [BAD]},
    ),
    (
      'preference',  # The system text beside whole conversations,
      {'system': 'be', 'chosen': [USER, GOOD], 'rejected': [USER, BAD]},
      {'prompt': [SYSTEM, USER], 'chosen': [GOOD], 'rejected': [BAD]},
    ),
    (
      'preference',  # that have one of their own,
      {
        'system': 'be not',
        'chosen': [SYSTEM, USER, GOOD],
        'rejected': [SYSTEM, USER, BAD],
      },
      {'prompt': [SYSTEM, USER], 'chosen': [GOOD], 'rejected': [BAD]},
    ),
    (
      'preference',  # beside a prompt that the responses begin with,
      {
        'system': 'be',
        'chosen': 'the sky is blue',
        'rejected': 'the sky is black',
      },
      {
        'prompt': [SYSTEM, {'role': 'user', 'content': 'the sky is'}],
        'chosen': [{'role': 'assistant', 'content': 'blue'}],
        'rejected': [{'role': 'assistant', 'content': 'black'}],
      },
    ),
    (
      'preference',  # beside transcripts,
      {
        'system': 'be',
        'chosen': '\n\nHuman: ask\n\nAssistant: good',
        'rejected': '\n\nHuman: ask\n\nAssistant: bad',
      },
      {'prompt': [SYSTEM, USER], 'chosen': [GOOD], 'rejected': [BAD]},
    ),
    (
      'completion',  # and beside a prompt of messages.
      {'system': 'be', 'prompt': [USER], 'completion': 'good'},
      {'messages': [SYSTEM, USER, GOOD]},
    ),
    (
      'prompts',
      {'system': 'be', 'prompt': '\n\nHuman: ask\n\nAssistant:'},
      {'prompt': [SYSTEM, USER]},
    ),
    (
      'rankings',
      {
        'prompt': 'ask',
        'responses': ['bad', 'good', 'bad'],
        'ranks': [5, 1, 5],
      },
      {
        'prompt': [USER],
        'responses': [[BAD], [GOOD], [BAD]],
        'ranks': [2, 1, 2],
      },
    ),
    (
      'rankings',
      {'prompt': 'ask', 'responses': [[BAD], [GOOD]], 'scores': [0.1, 0.9]},
      {'prompt': [USER], 'responses': [[BAD], [GOOD]], 'ranks': [2, 1]},
    ),
    (
      'rankings',
      {
        'prompt': 'ask',
        'completions': [
          {'response': 'bad', 'overall_score': 1},
          {'response': 'good', 'overall_score': 8},
        ],
      },
      {'prompt': [USER], 'responses': [[BAD], [GOOD]], 'ranks': [2, 1]},
    ),
    (
      'unpaired',
      {'prompt': 'ask', 'completion': 'good', 'label': True},
      {'prompt': [USER], 'response': [GOOD], 'label': True},
    ),
    (
      'unpaired',
      {'messages': [USER, BAD], 'label': 'False'},
      {'prompt': [USER], 'response': [BAD], 'label': False},
    ),
    (
      'unpaired',
      {'instruction': 'ask', 'output': 'bad', 'kto_tag': False},
      {'prompt': [USER], 'response': [BAD], 'label': False},
    ),
    ('prompts', {'prompt': 'ask', 'answer': '4'}, {'prompt': [USER]}),
    ('prompts', {'prompt': [USER, GOOD]}, {'prompt': [USER]}),
    ('text', {'text': 'once upon'}, {'text': 'once upon'}),
  ],
)
def test_formats(format, row, expected):
  assert formats.detect(row) == format
  assert formats.canonical(row, format) == expected


@pytest.mark.parametrize(
  'format, row, field, found, expected',
  [
    ('alpaca', {'instruction': 'a', 'output': 3}, 'output', 'int 3', 'text'),
    (
      'alpaca',
      {'instruction': 'a', 'output': ' '},
      'output',
      "' '",
      'not empty',
    ),
    (
      'alpaca',
      {'instruction': 'a', 'output': 'b', 'history': ['c']},
      'history[0]',
      "'c'",
      '[instruction, response]',
    ),
    ('completion', {'prompt': 'a'}, 'completion', 'nothing', 'text'),
    ('messages', {'messages': 'a'}, 'messages', "'a'", 'a list of messages'),
    ('messages', {'messages': []}, 'messages', 'list []', 'a list of messages'),
    (
      'messages',
      {'messages': [USER, {'role': 'robot', 'content': 'b'}]},
      'messages[1].role',
      "'robot'",
      'one of system',
    ),
    (
      'messages',
      {'messages': [USER, {'role': 'assistant', 'content': ''}]},
      'messages[1].content',
      "''",
      'text or tool calls',
    ),
    (
      'messages',
      {'messages': [{'role': 'user', 'content': [{'type': 'image'}]}]},
      'messages[0].content',
      'image',
      'text parts only',
    ),
    ('messages', {'messages': [USER], 'tools': '[{'}, 'tools', '[{', 'JSON'),
    (
      'sharegpt',
      {'conversations': [{'from': 'function_call', 'value': 'add(1)'}]},
      'conversations[0]',
      'add(1)',
      'JSON',
    ),
    (
      'preference',
      {'prompt': 'a', 'chosen': 'b', 'rejected': 'b'},
      'rejected',
      'the same text',
      'another',
    ),
    (
      'preference',
      {'prompt': 'a', 'chosen': 'b'},
      'rejected',
      'nothing',
      'text',
    ),
    ('preference', {'chosen': 'b', 'rejected': 'c'}, 'prompt', 'nothing', ''),
    (
      'preference',
      {'prompt': 'a', 'chosen': 'b', 'rejected': 'c', 'margin': 'big'},
      'margin',
      "'big'",
      'a number',
    ),
    (
      'preference',
      {'chosen': [USER, GOOD, USER], 'rejected': [USER, GOOD]},
      'chosen',
      "role 'user'",
      'an assistant turn',
    ),
    ('rankings', {'prompt': 'a', 'responses': ['b']}, 'responses', 'b', 'two'),
    (
      'rankings',
      {'prompt': 'a', 'responses': ['b', 'c'], 'ranks': [1]},
      'ranks',
      '[1]',
      '2 numbers',
    ),
    (
      'unpaired',
      {'prompt': 'a', 'completion': 'b', 'label': 3},
      'label',
      'int 3',
      'true or false',
    ),
    ('prompts', {'prompt': 7}, 'prompt', 'int 7', 'text'),
    ('text', {'text': None}, 'text', 'nothing', 'text'),
    ('text', ['a'], '(row)', "list ['a']", 'an object'),
  ],
)
def test_malformed(format, row, field, found, expected):
  with pytest.raises(data.RowError) as error:
    formats.canonical(row, format)
  assert error.value.field == field
  assert found in error.value.found
  assert expected in error.value.expected


def test_unclear_format_names_the_keys():
  with pytest.raises(ValueError, match=r"\['answer', 'question'\] fit no form"):
    formats.detect({'question': 'a', 'answer': 'b'})
  both = {'messages': [USER], 'conversations': [USER]}
  with pytest.raises(ValueError, match="'messages', 'sharegpt'"):
    formats.detect(both)
