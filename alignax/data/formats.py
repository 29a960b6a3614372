"""Formats of data sets, each mapped to one of six canonical rows.

A canonical row is a plain dict of one of these types:

    conversation  messages                       [tools, class]
    preference    prompt, chosen, rejected       [tools, margin]
    ranking       prompt, responses, ranks       [tools]
    unpaired      prompt, response, label        [tools]
    prompt        prompt                         [tools]
    text          text                           [class]

`prompt`, `chosen`, `rejected`, `response` and each of `responses` are lists of
messages; a prompt ends where the model starts to speak. In `ranks` 1 is best
and equal numbers are a tie. A `class` is a number from 0.
"""

from alignax.data import comparisons
from alignax.data.fields import (
  answer_field,
  answer_of,
  before_response,
  conversation,
  instruction,
  prompt_of,
  response_of,
  text_field,
)
from alignax.data.messages import tools
from alignax.data.rows import RowError, shorten


def canonical(row: dict, format: str) -> dict:
  """The canonical row of a row in a named format.

  Raises:
    RowError: naming the field, what it holds and what it should.
  """
  if not isinstance(row, dict):
    raise RowError(field='(row)', found=shorten(row), expected='an object')
  more = {'tools': tools(row), 'class': _class(row)}
  given = {key: value for key, value in more.items() if value is not None}
  return _READERS[format](row) | given


def detect(row: dict, name: str = 'row') -> str:
  """Format of a row by its keys, where they allow one reading only."""
  has = lambda *keys: all(row.get(key) is not None for key in keys)
  asks = any(map(has, ('prompt', 'messages', 'conversations', 'instruction')))
  if has('chosen', 'rejected'):
    return 'preference'
  if has('prompt') and comparisons.has_responses(row):
    return 'rankings'
  if asks and (has('label') or has('kto_tag')):
    return 'unpaired'
  found = [
    format
    for format, fits in (
      ('alpaca', has('instruction') and 'output' in row),
      ('messages', has('messages')),
      ('sharegpt', has('conversations')),
      ('completion', has('prompt') and answer_field(row)),
    )
    if fits
  ]
  # Many data sets repeat their conversations as `prompt` or as `text`.
  if not found:
    found = [
      f for f, key in (('prompts', 'prompt'), ('text', 'text')) if has(key)
    ]
  if len(found) != 1:
    raise ValueError(
      f'{name}: the keys {sorted(row)} fit {found or "no format"}; pass '
      f'format= one of {", ".join(FORMATS)}, or columns= to rename fields'
    )
  return found[0]


def check_name(format: str | None) -> None:
  if format is not None and format not in FORMATS:
    raise ValueError(
      f'format {format!r} is unknown; expected one of {", ".join(FORMATS)}'
    )


def _class(row):
  """The number of its class; a `class` of another kind means something else."""
  value = row.get('class')
  return value if type(value) is int and value >= 0 else None


def _alpaca(row):
  return {'messages': instruction(row) + response_of(row, 'output')}


def _completion(row):
  return {'messages': prompt_of(row) + answer_of(row)}


def _chat(row):
  messages = conversation(row)
  roles = {message['role'] for message in messages}
  return {'messages' if 'assistant' in roles else 'prompt': messages}


def _prompts(row):
  """Any row that has a prompt; what answers it need not be there."""
  if 'prompt' in row:
    return {'prompt': before_response(prompt_of(row))}
  if 'instruction' in row:
    return {'prompt': instruction(row)}
  return {'prompt': before_response(conversation(row))}


def _text(row):
  return {'text': text_field(row, 'text')}


_READERS = {
  'alpaca': _alpaca,
  'completion': _completion,
  'messages': _chat,
  'sharegpt': _chat,
  'preference': comparisons.preference,
  'rankings': comparisons.rankings,
  'unpaired': comparisons.unpaired,
  'prompts': _prompts,
  'text': _text,
}
FORMATS = tuple(_READERS)
# Those of which 'prompts' can be read even where the response is missing.
WITH_PROMPT = ('alpaca', 'completion', 'messages', 'sharegpt', 'prompts')
