"""Checks and spellings of chat messages and tools.

One message is `{role, content}`; an assistant's may also hold `tool_calls`,
`[{'type': 'function', 'function': {'name', 'arguments': dict}}]`, and other
keys a template may read (`name`, `reasoning_content`).
"""

import contextlib
import json

from alignax.data.rows import RowError, shorten

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


def message(value, field: str) -> dict:
  """One message, spelled `role`/`content` or `from`/`value`."""
  if not isinstance(value, dict):
    raise RowError(field=field, found=shorten(value), expected='an object')
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
      found=shorten(role),
      expected='one of ' + ', '.join((*ROLES, *_SPELLINGS)),
    )
  calls = extra.pop('tool_calls', None)
  if calls:
    extra['tool_calls'] = [tool_call(c, field) for c in calls]
  content = _content(content, field, role=role, optional=bool(calls))
  return {'role': role, 'content': content, **extra}


def is_chat(value) -> bool:
  """Whether a value is messages, or one of them, rather than other JSON."""
  turns = value if isinstance(value, list) else [value]
  spelled = lambda turn: isinstance(turn, dict) and (
    {'from', 'value'} <= turn.keys()
    or ('role' in turn and turn.keys() & {'content', 'tool_calls'})
  )
  if not turns or not all(map(spelled, turns)):
    return False
  roles = [turn.get('role', turn.get('from')) for turn in turns]
  # One is enough: a misspelled role is to be an error, not text to learn.
  return any(role in (*ROLES, *_SPELLINGS) for role in roles)


def _content(content, field: str, *, role: str, optional: bool) -> str:
  """The text of a message; its parts joined where it comes in parts."""
  if isinstance(content, list):
    for part in content:
      if not isinstance(part, dict) or not isinstance(part.get('text'), str):
        raise RowError(
          field=f'{field}.content',
          found=shorten(part),
          expected='text parts only (alignax trains on text)',
        )
    content = ''.join(part['text'] for part in content)
  if content is None and optional:
    return ''
  if not isinstance(content, str):
    raise RowError(
      field=f'{field}.content', found=shorten(content), expected='text'
    )
  if role == 'assistant' and not content.strip() and not optional:
    raise RowError(
      field=f'{field}.content',
      found=shorten(content),
      expected='an assistant turn with text or tool calls',
    )
  return content


def _parsed_calls(value, field: str) -> list:
  if isinstance(value, str):
    try:
      value = json.loads(value)
    except json.JSONDecodeError as e:
      raise RowError(
        field=field,
        found=shorten(value),
        expected=f'a function call as JSON ({e})',
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
      found=shorten(call),
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
        field='tools', found=shorten(value), expected=f'a list as JSON ({e})'
      ) from e
  if not isinstance(value, list) or not all(isinstance(t, dict) for t in value):
    raise RowError(
      field='tools', found=shorten(value), expected='a list of objects'
    )
  return [
    t if 'function' in t else {'type': 'function', 'function': t} for t in value
  ] or None
