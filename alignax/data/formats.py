"""Formats of data sets, each mapped to one of six canonical rows.

A canonical row is a plain dict of one of these types:

    conversation  messages                       [tools]
    preference    prompt, chosen, rejected       [tools, margin]
    ranking       prompt, responses, ranks       [tools]
    unpaired      prompt, response, label        [tools]
    prompt        prompt                         [tools]
    text          text

`prompt`, `chosen`, `rejected`, `response` and each of `responses` are lists of
messages; a prompt ends where the model starts to speak. In `ranks` 1 is best
and equal numbers are a tie.
"""

import os

from alignax.data.messages import (
  chat,
  is_transcript,
  message,
  text_field,
  tools,
  transcript,
)
from alignax.data.rows import RowError


def check_name(format: str | None) -> None:
  if format is not None and format not in FORMATS:
    raise ValueError(
      f'format {format!r} is unknown; expected one of {", ".join(FORMATS)}'
    )


def detect(row: dict, name: str = 'row') -> str:
  """Format of a row by its keys, where they allow one reading only."""
  has = lambda *keys: all(row.get(key) is not None for key in keys)
  if has('chosen', 'rejected'):
    return 'preference'
  if has('prompt') and (has('responses') or _ranked(row.get('completions'))):
    return 'rankings'
  if has('label') or has('kto_tag'):
    return 'unpaired'
  found = [
    format
    for format, fits in (
      ('alpaca', has('instruction') and 'output' in row),
      ('messages', has('messages')),
      ('sharegpt', has('conversations')),
      ('completion', has('prompt') and ('completion' in row or _answer(row))),
      ('prompts', has('prompt') and not _answer(row)),
      ('text', has('text')),
    )
    if fits
  ]
  if 'completion' in found and 'prompts' in found:
    found.remove('prompts')
  if len(found) != 1:
    raise ValueError(
      f'{name}: the keys {sorted(row)} fit {found or "no format"}; pass '
      f'format= one of {", ".join(FORMATS)}, or columns= to rename fields'
    )
  return found[0]


def canonical(row: dict, format: str) -> dict:
  """The canonical row of a row in a named format."""
  if not isinstance(row, dict):
    raise RowError(field='(row)', found=row, expected='an object')
  given = tools(row)
  return _READERS[format](row) | ({'tools': given} if given else {})


def _alpaca(row):
  system = text_field(row, 'system', empty=True)
  user = text_field(row, 'instruction')
  if more := text_field(row, 'input', empty=True):
    user = f'{user}\n\n{more}'
  turns = [('user', user), ('assistant', text_field(row, 'output'))]
  history = [
    (role, text)
    for pair in row.get('history') or ()
    for role, text in zip(('user', 'assistant'), pair)
  ]
  turns = ([('system', system)] if system else []) + history + turns
  return {'messages': [{'role': r, 'content': c} for r, c in turns]}


def _completion(row):
  response = _response(row, _answer(row) or 'completion')
  return {'messages': _prompt(row) + response}


def _messages(row):
  messages = chat(row, 'messages')
  if 'assistant' not in {m['role'] for m in messages}:
    return {'prompt': messages}
  return {'messages': messages}


def _sharegpt(row):
  system = text_field(row, 'system', empty=True)
  messages = chat(row, 'conversations')
  if system and messages[0]['role'] != 'system':
    messages.insert(0, {'role': 'system', 'content': system})
  return _messages({'messages': messages})


def _preference(row):
  prompt, chosen, rejected = _prompt_and(row, 'chosen', 'rejected')
  if chosen == rejected:
    raise RowError(
      field='rejected',
      found='the same text as in chosen',
      expected='another response',
    )
  margin = _margin(row)
  canon = {'prompt': prompt, 'chosen': chosen, 'rejected': rejected}
  return canon | ({} if margin is None else {'margin': margin})


def _rankings(row):
  completions = row.get('completions')
  if 'responses' not in row and _ranked(completions):
    row = row | {'responses': [c.get('response') for c in completions]}
    for ours, theirs in (('ranks', 'rank'), ('scores', 'overall_score')):
      if all(c.get(theirs) is not None for c in completions):
        row[ours] = [c[theirs] for c in completions]
  values = row.get('responses')
  if not isinstance(values, list) or len(values) < 2:
    raise RowError(
      field='responses', found=values, expected='a list of two or more'
    )
  named = {f'responses[{i}]': value for i, value in enumerate(values)}
  responses = [_response(named, field) for field in named]
  return {
    'prompt': _prompt(row),
    'responses': responses,
    'ranks': _ranks(row, len(values)),
  }


def _unpaired(row):
  label = row.get('label', row.get('kto_tag'))
  if isinstance(label, str) and label.lower() in ('true', 'false'):
    label = label.lower() == 'true'
  if not isinstance(label, bool) and label not in (0, 1):
    raise RowError(field='label', found=label, expected='true or false')
  if 'messages' in row or 'conversations' in row:
    field = 'messages' if 'messages' in row else 'conversations'
    messages = chat(row, field)
    if messages[-1]['role'] != 'assistant':
      raise RowError(
        field=field,
        found=f'a last turn of role {messages[-1]["role"]!r}',
        expected='an assistant turn at the end, which the label judges',
      )
    prompt, response = messages[:-1], messages[-1:]
  elif 'instruction' in row:
    messages = _alpaca(row)['messages']
    prompt, response = messages[:-1], messages[-1:]
  else:
    prompt = _prompt(row)
    response = _response(row, _answer(row) or 'completion')
  return {'prompt': prompt, 'response': response, 'label': bool(label)}


def _prompts(row):
  for field in ('messages', 'conversations'):
    if field in row:
      return {'prompt': before_response(chat(row, field))}
  if 'instruction' in row and 'prompt' not in row:
    # A made-up answer, since prompts need none: cut off again.
    return {'prompt': _alpaca(row | {'output': '-'})['messages'][:-1]}
  return {'prompt': before_response(_prompt(row))}


def _text(row):
  return {'text': text_field(row, 'text')}


def before_response(messages: list[dict]) -> list[dict]:
  """The messages without the response that ends them, if one does."""
  ends = messages[-1]['role'] == 'assistant'
  return messages[:-1] if ends else messages


def _prompt(row: dict) -> list[dict]:
  """`prompt` as messages: a list of them, a transcript, or a user's text."""
  value = row.get('prompt')
  if isinstance(value, list):
    return chat(row, 'prompt')
  if is_transcript(value):
    return transcript(
      {'prompt': value.removesuffix('Assistant:').rstrip()}, 'prompt'
    )
  system = text_field(row, 'system', empty=True)
  turns = [{'role': 'system', 'content': system}] if system else []
  return turns + [{'role': 'user', 'content': text_field(row, 'prompt')}]


def _response(row: dict, field: str) -> list[dict]:
  """A response as messages: a list of them, one of them, or its text."""
  value = row.get(field)
  if isinstance(value, dict):
    return [message(value, field)]
  if isinstance(value, list):
    return chat(row, field)
  return [{'role': 'assistant', 'content': text_field(row, field)}]


def _prompt_and(row: dict, *fields: str):
  """The prompt and the responses that follow it, whichever way they are kept:
  prompt given or implied by what the responses share, as text or as chat."""
  if is_transcript(row.get(fields[0])):
    return _shared(*(transcript(row, field) for field in fields))
  responses = [_response(row, field) for field in fields]
  for field in ('conversations', 'messages'):
    if field in row:
      return chat(row, field), *responses
  if all(r[0]['role'] != 'assistant' for r in responses):
    return _shared(*responses)  # Whole conversations; a `prompt` repeats them.
  if 'prompt' in row:
    return _prompt(row), *responses
  if all(isinstance(row[field], str) for field in fields):
    prompt, *texts = _shared_text(*(row[field] for field in fields))
    named = zip(fields, texts)
    return _prompt({'prompt': prompt}), *(
      _response({f: t}, f) for f, t in named
    )
  raise RowError(
    field='prompt',
    found=None,
    expected='a prompt, or responses that begin with it',
  )


def _shared(chosen: list[dict], rejected: list[dict]):
  """Splits two conversations after the messages that they share."""
  last = min(len(chosen), len(rejected)) - 1
  n = next((i for i in range(last) if chosen[i] != rejected[i]), last)
  for field, rest in (('chosen', chosen[n:]), ('rejected', rejected[n:])):
    if rest[-1]['role'] != 'assistant':
      raise RowError(
        field=field,
        found=f'a last turn of role {rest[-1]["role"]!r}',
        expected='an assistant turn at the end',
      )
  return chosen[:n], chosen[n:], rejected[n:]


def _shared_text(chosen: str, rejected: str):
  """Splits two texts after the words that they share."""
  shared = os.path.commonprefix([chosen, rejected])
  cut = max(shared.rfind(' '), shared.rfind('\n'))
  if cut < 1:
    raise RowError(
      field='prompt',
      found=None,
      expected='a prompt, or a chosen and a rejected text that begin with it',
    )
  return shared[:cut], chosen[cut:].strip(), rejected[cut:].strip()


def _answer(row: dict) -> str | None:
  """Name of the field that answers `prompt`."""
  return next((f for f in ('completion', 'response') if f in row), None)


def _ranked(value) -> bool:
  return isinstance(value, list) and all(isinstance(v, dict) for v in value)


def _margin(row: dict) -> float | None:
  value = row.get('margin')
  if value is None and None not in (
    scores := [row.get('score_chosen'), row.get('score_rejected')]
  ):
    value = scores[0] - scores[1]
  if value is None:
    return None
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise RowError(field='margin', found=value, expected='a number')
  return float(value)


def _ranks(row: dict, n: int) -> list[int]:
  """Ranks as given, or from scores, of which the highest is best."""
  field = 'ranks' if row.get('ranks') is not None else 'scores'
  values = row.get(field)
  is_number = lambda v: isinstance(v, int | float) and not isinstance(v, bool)
  if (
    not isinstance(values, list)
    or len(values) != n
    or not all(map(is_number, values))
    or len(set(values)) < 2
  ):
    raise RowError(
      field=field,
      found=values,
      expected=f'{n} numbers that are not all equal (ranks: 1 is best; '
      'scores: the highest is best)',
    )
  sign = 1 if field == 'ranks' else -1
  order = sorted({sign * v for v in values})
  return [1 + order.index(sign * v) for v in values]


_READERS = {
  'alpaca': _alpaca,
  'completion': _completion,
  'messages': _messages,
  'sharegpt': _sharegpt,
  'preference': _preference,
  'rankings': _rankings,
  'unpaired': _unpaired,
  'prompts': _prompts,
  'text': _text,
}
FORMATS = tuple(_READERS)
