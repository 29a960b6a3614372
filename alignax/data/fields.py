"""Fields of rows that hold text, a prompt, a response or a conversation."""

import re

from alignax.data.messages import message
from alignax.data.rows import RowError, shorten

_HH_TURN = re.compile(r'\n\n(Human|Assistant):[ ]?')


def text_field(row: dict, field: str, *, empty: bool = False) -> str:
  """A field that must be text."""
  value = row.get(field)
  if value is None and empty:
    return ''
  if not isinstance(value, str):
    raise RowError(field=field, found=shorten(value), expected='text')
  if not value.strip() and not empty:
    raise RowError(
      field=field, found=shorten(value), expected='text that is not empty'
    )
  return value


def chat(row: dict, field: str) -> list[dict]:
  """A field that must be a list of messages, in either spelling."""
  value = row.get(field)
  if not isinstance(value, list) or not value:
    raise RowError(
      field=field,
      found=shorten(value),
      expected='a list of messages such as {"role": "user", "content": "..."}',
    )
  return [message(m, f'{field}[{i}]') for i, m in enumerate(value)]


def transcript(row: dict, field: str) -> list[dict]:
  r"""Messages of a '\n\nHuman: ... \n\nAssistant: ...' transcript."""
  text = text_field(row, field)
  before, *parts = _HH_TURN.split(text)
  if before.strip() or not parts:
    raise RowError(
      field=field,
      found=shorten(text),
      expected=r"a transcript that starts with '\n\nHuman: '",
    )
  turns = []
  for i, (name, content) in enumerate(zip(parts[::2], parts[1::2])):
    role = 'user' if name == 'Human' else 'assistant'
    value = {'role': role, 'content': content.strip()}
    turns.append(message(value, f'{field}[{i}]'))
  return turns


def is_transcript(value) -> bool:
  return isinstance(value, str) and value.startswith('\n\nHuman:')


def conversation(row: dict) -> list[dict]:
  """`messages` or `conversations`, with the system text kept beside it."""
  field = 'messages' if row.get('messages') is not None else 'conversations'
  return with_system(row, chat(row, field))


def prompt_of(row: dict) -> list[dict]:
  """`prompt` as messages: a list of them, a transcript, or a user's text.

  The system text may be kept beside it.
  """
  value = row.get('prompt')
  if isinstance(value, list):
    return with_system(row, chat(row, 'prompt'))
  if is_transcript(value):
    # It may end with the header of the turn that the model is to write.
    text = value.rstrip().removesuffix('Assistant:').rstrip()
    return with_system(row, transcript({'prompt': text}, 'prompt'))
  turn = {'role': 'user', 'content': text_field(row, 'prompt')}
  return with_system(row, [turn])


def instruction(row: dict) -> list[dict]:
  """Everything of an alpaca row that comes before its output."""
  user = text_field(row, 'instruction')
  if more := text_field(row, 'input', empty=True):
    user = f'{user}\n\n{more}'
  turns = []
  for i, pair in enumerate(row.get('history') or ()):
    if not isinstance(pair, list | tuple) or len(pair) != 2:
      raise RowError(
        field=f'history[{i}]',
        found=shorten(pair),
        expected='[instruction, response]',
      )
    for role, content in zip(('user', 'assistant'), pair):
      turn = {'role': role, 'content': content}
      turns.append(message(turn, f'history[{i}]'))
  turns.append({'role': 'user', 'content': user})
  return with_system(row, turns)


def with_system(row: dict, messages: list[dict]) -> list[dict]:
  """The messages after the row's own system text, unless they have one."""
  content = text_field(row, 'system', empty=True)
  if not content or messages[0]['role'] == 'system':
    return messages
  return [{'role': 'system', 'content': content}, *messages]


def response_of(row: dict, field: str) -> list[dict]:
  """A response as messages: a list of them, one of them, or its text."""
  value = row.get(field)
  if isinstance(value, dict):
    return [message(value, field)]
  if isinstance(value, list):
    return chat(row, field)
  return [{'role': 'assistant', 'content': text_field(row, field)}]


def answer_of(row: dict) -> list[dict]:
  """The response of a row with a prompt."""
  return response_of(row, answer_field(row) or 'completion')


def answer_field(row: dict) -> str | None:
  """Name of the field that answers `prompt`."""
  return next((f for f in ('completion', 'response') if f in row), None)


def before_response(messages: list[dict]) -> list[dict]:
  """The messages without the response that ends them, if one does."""
  ends = messages[-1]['role'] == 'assistant'
  return messages[:-1] if ends else messages


def ending_in_response(messages: list[dict], field: str) -> list[dict]:
  """The messages, if the assistant has the last word."""
  if messages[-1]['role'] != 'assistant':
    raise RowError(
      field=field,
      found=f'a last turn of role {messages[-1]["role"]!r}',
      expected='an assistant turn at the end',
    )
  return messages
