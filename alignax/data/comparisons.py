"""Formats in which responses are compared or judged."""

import math
import os

from alignax.data.fields import (
  answer_of,
  conversation,
  ending_in_response,
  instruction,
  is_transcript,
  prompt_of,
  response_of,
  transcript,
  with_system,
)
from alignax.data.rows import RowError, shorten


def preference(row: dict) -> dict:
  """Two responses, of which one was preferred, perhaps by a known margin."""
  prompt, chosen, rejected = _prompt_and_pair(row)
  if chosen == rejected:
    raise RowError(
      field='rejected',
      found='the same text as in chosen',
      expected='another response',
    )
  margin = _margin(row)
  pair = {'prompt': prompt, 'chosen': chosen, 'rejected': rejected}
  return pair | ({} if margin is None else {'margin': margin})


def rankings(row: dict) -> dict:
  """Several responses to one prompt, with ranks or with scores."""
  row = _flattened(row)
  values = row.get('responses')
  if not isinstance(values, list) or len(values) < 2:
    raise RowError(
      field='responses',
      found=shorten(values),
      expected='a list of two or more',
    )
  named = {f'responses[{i}]': value for i, value in enumerate(values)}
  return {
    'prompt': prompt_of(row),
    'responses': [response_of(named, field) for field in named],
    'ranks': _ranks(row, len(values)),
  }


def unpaired(row: dict) -> dict:
  """One response and whether it is a good one."""
  label = row.get('label', row.get('kto_tag'))
  if isinstance(label, str) and label.lower() in ('true', 'false'):
    label = label.lower() == 'true'
  if label not in (True, False):
    raise RowError(
      field='label', found=shorten(label), expected='true or false'
    )
  if 'messages' in row or 'conversations' in row:
    messages = ending_in_response(conversation(row), 'messages')
    prompt, response = messages[:-1], messages[-1:]
  elif 'instruction' in row:
    prompt, response = instruction(row), response_of(row, 'output')
  else:
    prompt, response = prompt_of(row), answer_of(row)
  return {'prompt': prompt, 'response': response, 'label': bool(label)}


def has_responses(row: dict) -> bool:
  """Whether a row has several responses, in either spelling."""
  return isinstance(row.get('responses'), list) or _rated(row)


def _rated(row: dict) -> bool:
  """Whether responses and their scores come as a list of objects."""
  value = row.get('completions')
  return isinstance(value, list) and all(isinstance(v, dict) for v in value)


def _flattened(row: dict) -> dict:
  if 'responses' in row or not _rated(row):
    return row
  completions = row['completions']
  flat = row | {'responses': [c.get('response') for c in completions]}
  for ours, theirs in (
    ('ranks', 'rank'),
    ('scores', 'score'),
    ('scores', 'overall_score'),
  ):
    if all(c.get(theirs) is not None for c in completions):
      return flat | {ours: [c[theirs] for c in completions]}
  return flat


def _prompt_and_pair(row: dict):
  """The prompt and the two responses, whichever way they are kept: the prompt
  given or implied by what the responses share, as text or as chat."""
  if is_transcript(row.get('chosen')) and is_transcript(row.get('rejected')):
    chosen, rejected = transcript(row, 'chosen'), transcript(row, 'rejected')
    return _shared(row, chosen, rejected)
  pair = response_of(row, 'chosen'), response_of(row, 'rejected')
  if 'conversations' in row:
    return conversation(row), *pair
  if all(response[0]['role'] != 'assistant' for response in pair):
    return _shared(row, *pair)  # Whole conversations; a `prompt` repeats them.
  if row.get('prompt') is not None:
    return prompt_of(row), *pair
  if 'instruction' in row:
    return instruction(row), *pair
  if isinstance(row['chosen'], str) and isinstance(row['rejected'], str):
    prompt, chosen, rejected = _shared_text(row['chosen'], row['rejected'])
    split = row | {'prompt': prompt, 'chosen': chosen, 'rejected': rejected}
    return (
      prompt_of(split),
      response_of(split, 'chosen'),
      response_of(split, 'rejected'),
    )
  raise RowError(
    field='prompt',
    found='nothing',
    expected='a prompt, or responses that begin with it',
  )


def _shared(row: dict, chosen: list[dict], rejected: list[dict]):
  """Splits two conversations after the messages that they share."""
  last = min(len(chosen), len(rejected)) - 1
  n = next((i for i in range(last) if chosen[i] != rejected[i]), last)
  if n == 0:
    raise RowError(
      field='rejected',
      found='a conversation that begins otherwise than chosen',
      expected='two conversations that begin with the same prompt',
    )
  return (
    with_system(row, chosen[:n]),
    ending_in_response(chosen[n:], 'chosen'),
    ending_in_response(rejected[n:], 'rejected'),
  )


def _shared_text(chosen: str, rejected: str):
  """Splits two texts after the words that they share."""
  shared = os.path.commonprefix([chosen, rejected])
  cut = max(shared.rfind(' '), shared.rfind('\n'))
  if cut < 1:
    raise RowError(
      field='prompt',
      found='nothing',
      expected='a prompt, or a chosen and a rejected text that begin with it',
    )
  return shared[:cut], chosen[cut:].strip(), rejected[cut:].strip()


def _margin(row: dict) -> float | None:
  value = row.get('margin')
  scores = row.get('score_chosen'), row.get('score_rejected')
  if value is None and all(map(_is_number, scores)):
    value = scores[0] - scores[1]
  if value is not None and not _is_number(value):
    raise RowError(field='margin', found=shorten(value), expected='a number')
  return None if value is None else float(value)


def _ranks(row: dict, n: int) -> list[int]:
  """Dense ranks from 1, of ranks or of scores, of which the highest is best."""
  field = 'ranks' if row.get('ranks') is not None else 'scores'
  values = row.get(field)
  if (
    not isinstance(values, list)
    or len(values) != n
    or not all(map(_is_number, values))
    or len(set(values)) < 2
  ):
    raise RowError(
      field=field,
      found=shorten(values),
      expected=f'{n} numbers that are not all equal (ranks: 1 is best; '
      'scores: the highest is best)',
    )
  sign = 1 if field == 'ranks' else -1
  order = sorted({sign * value for value in values})
  return [1 + order.index(sign * value) for value in values]


def _is_number(value) -> bool:
  numeric = isinstance(value, int | float) and not isinstance(value, bool)
  return numeric and math.isfinite(value)
