"""Checks and spellings of chat messages and tools.

One message is `{role, content}`; an assistant's may also hold `tool_calls`,
`[{'type': 'function', 'function': {'name', 'arguments': dict}}]`, and other
keys a template may read (`name`, `reasoning_content`).
"""

import contextlib
import json
import re

from alignax.data.rows import RowError

ROLES = ('system', 'developer', 'user', 'assistant', 'tool')
_SPELLINGS = {
  'human': 'user',
  'prompter': 'user',
  'gpt': 'assistant',
  'chatgpt': 'assistant',
  'model': 'assistant',
  'observation': 'tool',
  'function_response': 'tool',
  'ipython': 'tool',
  'function': 'tool',
}
_HH_TURN = re.compile(r'\n\n(Human|Assistant):[ ]?')


def text_field(row: dict, field: str, *, empty: bool = False) -> str:
  """A field that must be text."""
  value = row.get(field)
  if value is None and empty:
    return ''
  if not isinstance(value, str):
    raise RowError(field=field, found=value, expected='text')
  if not value.strip() and not empty:
    raise RowError(field=field, found=value, expected='text that is not empty')
  return value


def chat(row: dict, field: str) -> list[dict]:
  """A field that must be a list of messages, in either spelling."""
  value = row.get(field)
  if not isinstance(value, list) or not value:
    raise RowError(
      field=field,
      found=value,
      expected='a list of messages such as {"role": "user", "content": "..."}',
    )
  return [message(m, f'{field}[{i}]') for i, m in enumerate(value)]


def message(value, field: str) -> dict:
  """One message, spelled `role`/`content` or `from`/`value`."""
  if not isinstance(value, dict):
    raise RowError(field=field, found=value, expected='an object')
  role = value.get('role', value.get('from'))
  content = value.get('content', value.get('value'))
  extra = {
    k: v
    for k, v in value.items()
    if k not in ('role', 'from', 'content', 'value') and v is not None
  }
  if role == 'function_call':
    calls = [tool_call(c, field) for c in _parsed_calls(content, field)]
    return {'role': 'assistant', 'content': '', 'tool_calls': calls, **extra}
  role = _SPELLINGS.get(role, role)
  if role not in ROLES:
    raise RowError(
      field=f'{field}.role',
      found=role,
      expected='one of ' + ', '.join((*ROLES, *_SPELLINGS)),
    )
  calls = extra.pop('tool_calls', None)
  if calls:
    extra['tool_calls'] = [tool_call(c, field) for c in calls]
  content = _content(content, field, role=role, optional=bool(calls))
  return {'role': role, 'content': content, **extra}


def _content(content, field: str, *, role: str, optional: bool) -> str:
  """The text of a message; its parts joined where it comes in parts."""
  if isinstance(content, list):
    for part in content:
      if not isinstance(part, dict) or not isinstance(part.get('text'), str):
        raise RowError(
          field=f'{field}.content',
          found=part,
          expected='text parts only (alignax trains on text)',
        )
    content = ''.join(part['text'] for part in content)
  if content is None and optional:
    return ''
  if not isinstance(content, str):
    raise RowError(field=f'{field}.content', found=content, expected='text')
  if role == 'assistant' and not content.strip() and not optional:
    raise RowError(
      field=f'{field}.content',
      found=content,
      expected='an assistant turn with text or tool calls',
    )
  return content


def _parsed_calls(value, field: str) -> list:
  if isinstance(value, str):
    try:
      value = json.loads(value)
    except json.JSONDecodeError as e:
      raise RowError(
        field=field, found=value, expected=f'a function call as JSON ({e})'
      ) from e
  return value if isinstance(value, list) else [value]


def tool_call(call, field: str) -> dict:
  """A call with its arguments as an object.

  Templates print the arguments as JSON themselves: a string would be quoted
  twice.
  """
  function = call.get('function', call) if isinstance(call, dict) else None
  if not isinstance(function, dict) or not isinstance(
    function.get('name'), str
  ):
    raise RowError(
      field=f'{field}.tool_calls',
      found=call,
      expected='{"name": ..., "arguments": {...}}',
    )
  arguments = function.get('arguments', {})
  if isinstance(arguments, str):
    # Not every API promises JSON: what is none is printed as it is.
    with contextlib.suppress(json.JSONDecodeError):
      arguments = json.loads(arguments)
  extra = {'id': call['id']} if call.get('id') else {}
  function = {'name': function['name'], 'arguments': arguments}
  return {'type': 'function', 'function': function, **extra}


def tools(row: dict) -> list[dict] | None:
  """The tools of a row, from a list or JSON text, wrapped as functions."""
  value = row.get('tools')
  if not value:
    return None
  if isinstance(value, str):
    try:
      value = json.loads(value)
    except json.JSONDecodeError as e:
      raise RowError(
        field='tools', found=value, expected=f'a list as JSON ({e})'
      ) from e
  if not isinstance(value, list) or not all(isinstance(t, dict) for t in value):
    raise RowError(field='tools', found=value, expected='a list of objects')
  return [
    t if 'function' in t else {'type': 'function', 'function': t} for t in value
  ] or None


def transcript(row: dict, field: str) -> list[dict]:
  r"""Messages of a '\n\nHuman: ... \n\nAssistant: ...' transcript."""
  text = text_field(row, field)
  before, *parts = _HH_TURN.split(text)
  if before.strip() or not parts:
    raise RowError(
      field=field,
      found=text,
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
