"""From canonical rows to texts with spans to learn, and on to tokens."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from alignax.data.fields import before_response
from alignax.data.rows import RowError
from alignax.data.spans import assistant_spans
from alignax.data.templates import Template


@dataclasses.dataclass(frozen=True)
class Draft:
  """An example before it is tokenised.

  Attributes:
    texts: of every candidate.
    spans: characters to learn, of every candidate.
    raw: whether it is a document of its own rather than a conversation.
    unwritten: whether the template leaves out some of the row.
    labels: other fields of the example.
  """

  texts: tuple[str, ...]
  spans: tuple[list[tuple[int, int]], ...]
  raw: bool = False
  unwritten: bool = False
  labels: dict = dataclasses.field(default_factory=dict)


def make_drafts(
  row: dict, kind: str, template: Template, *, turns: str = 'all'
) -> list[Draft]:
  """The drafts of a canonical row; a ranking has one for every pair of it."""
  make: dict[str, Callable] = {
    'text': _text,
    'pairs': _pairs,
    'rankings': _rankings,
    'unpaired': _unpaired,
    'prompts': _prompts,
  }
  drafts = make[kind](row, template, turns)
  if drafts is None:
    raise RowError(
      field='(row)',
      found=f'the fields {sorted(row)}',
      expected=_EXPECTED[kind],
    )
  return drafts


_EXPECTED = {
  'text': "conversations or raw text for kind 'text'",
  'pairs': "preference pairs or rankings for kind 'pairs'",
  'rankings': "rankings or preference pairs for kind 'rankings'",
  'unpaired': "labelled responses or preference pairs for kind 'unpaired'",
  'prompts': "prompts or anything that has one for kind 'prompts'",
}


def _text(row, template, turns):
  labels = {'category': row.get('class')}
  if 'text' in row:
    text = row['text']
    return [Draft((text,), ([(0, len(text))],), raw=True, labels=labels)]
  messages = row.get('messages', row.get('prompt'))
  if messages is None or 'chosen' in row or 'responses' in row:
    return None
  learned = [i for i, m in enumerate(messages) if m['role'] == 'assistant']
  first = learned[-1] if learned and turns == 'last' else 0
  tools = row.get('tools')
  text, spans = assistant_spans(template, messages, tools, first=first)
  unwritten = not _is_written(text, messages, tools)
  return [Draft((text,), (spans,), unwritten=unwritten, labels=labels)]


def _is_written(text: str, messages, tools) -> bool:
  """Whether a rendered text holds every turn and names every tool."""
  names = [tool['function'].get('name', '') for tool in tools or ()]
  return all(part in text for part in names) and all(
    message['content'].strip() in text for message in messages
  )


def _pairs(row, template, turns):
  if 'responses' in row:
    order = itertools.permutations(range(len(row['ranks'])), 2)
    better = [(i, j) for i, j in order if row['ranks'][i] < row['ranks'][j]]
    pairs = [[row['responses'][i] for i in pair] for pair in better]
  elif 'chosen' in row:
    pairs = [[row['chosen'], row['rejected']]]
  else:
    return None
  labels = {'margin': row.get('margin', 0.0)}
  return [_candidates(row, template, pair, labels) for pair in pairs]


def _rankings(row, template, turns):
  if 'chosen' in row:
    responses, ranks = [row['chosen'], row['rejected']], [1, 2]
  elif 'responses' in row:
    responses, ranks = row['responses'], row['ranks']
  else:
    return None
  return [_candidates(row, template, responses, {'ranks': tuple(ranks)})]


def _unpaired(row, template, turns):
  if 'chosen' in row:
    responses = [(row['chosen'], True), (row['rejected'], False)]
  elif 'label' in row:
    responses = [(row['response'], row['label'])]
  else:
    return None
  return [
    _candidates(row, template, [response], {'desirable': label})
    for response, label in responses
  ]


def _prompts(row, template, turns):
  if 'messages' in row:
    prompt = before_response(row['messages'])
  elif 'prompt' in row:
    prompt = row['prompt']
  else:
    return None
  tools = row.get('tools')
  text = template.render(prompt, tools, prompt=True)
  unwritten = not _is_written(text, prompt, tools)
  return [Draft((text,), ([],), unwritten=unwritten)]


def _candidates(row, template, responses, labels) -> Draft:
  """Responses to one prompt; only the turns after the prompt are learned."""
  prompt, tools = row['prompt'], row.get('tools')
  texts, spans = zip(
    *(
      assistant_spans(template, prompt + r, tools, first=len(prompt))
      for r in responses
    )
  )
  unwritten = not all(
    _is_written(text, prompt + r, tools) for text, r in zip(texts, responses)
  )
  return Draft(texts, spans, unwritten=unwritten, labels=labels)


def tokenise(tokenizer, drafts: list[Draft], *, bos: bool) -> list[tuple]:
  """Tokens and learned flags of every candidate of every draft.

  Each text is tokenised once, whole, as the model will read it; a token is
  learned if all of its characters lie in one span. Raw text gets the beginning
  token if this tokenizer writes one, and the end token.

  Args:
    tokenizer: a fast tokenizer, which knows the characters of its tokens.
    drafts: what to tokenise.
    bos: whether the tokenizer writes a beginning token.

  Returns:
    For every draft the tokens of its candidates, the learned flags of each,
    and whether a token spans the start of a span and so is not learned.
  """
  encoded = tokenizer(
    [text for draft in drafts for text in draft.texts],
    add_special_tokens=False,
    return_offsets_mapping=True,
    return_attention_mask=False,
    return_token_type_ids=False,
    truncation=False,
    padding=False,
    verbose=False,
  )
  encodings = iter(zip(encoded['input_ids'], encoded['offset_mapping']))
  results = []
  for draft in drafts:
    parts = [_flagged(*next(encodings), spans) for spans in draft.spans]
    if draft.raw:
      parts = [_as_document(*part, tokenizer, bos=bos) for part in parts]
    tokens, learned, merged = zip(*parts)
    results.append((tokens, learned, any(merged)))
  return results


def _flagged(ids, offsets, spans):
  starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
  learned, merged = np.zeros(len(ids), bool), False
  for start, end in spans:
    learned |= (starts >= start) & (ends <= end)
    merged |= bool(((starts < start) & (ends > start)).any())
  return np.array(ids, np.int32), learned, merged


def _as_document(tokens, learned, merged, tokenizer, *, bos: bool):
  if bos:
    tokens = np.append(np.int32(tokenizer.bos_token_id), tokens)
    learned = np.append(False, learned)
  if tokenizer.eos_token_id is not None:
    tokens = np.append(tokens, np.int32(tokenizer.eos_token_id))
    learned = np.append(learned, True)
  return tokens, learned, merged
