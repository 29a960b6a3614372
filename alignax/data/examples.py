"""From canonical rows to tokens, and which of them are learned.

Batches speak one language, all arrays [..., T]:

    inputs     tokens, all of them
    targets    the token after each
    segments   0 is padding; 1, 2, ... are the documents packed into a row
    positions  0, 1, ... in every document
    mask       whether the target is learned from

An example is one document, or the candidates of one comparison, before it is
padded or packed.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from alignax.data import formats
from alignax.data.rows import RowError
from alignax.data.spans import assistant_spans
from alignax.data.templates import Template

KINDS = ('text', 'pairs', 'rankings', 'unpaired', 'prompts')


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
  """The tokens of one document, or of every candidate of one comparison.

  Attributes:
    tokens: int32 [n] of every candidate; a single one unless compared.
    learned: bool [n] of every candidate: tokens the model has to write.
    row: index of its row in the rows given to `prepare`.
    source: number of its source in a mixture.
    margin: by how much chosen is better than rejected; 0 if unknown.
    ranks: rank of every candidate, 1 is best.
    desirable: whether an unpaired response is a good one.
    ref_logps: log-prob of every candidate under the reference, if precomputed.
  """

  tokens: tuple[np.ndarray, ...]
  learned: tuple[np.ndarray, ...]
  row: int
  source: int = 0
  margin: float = 0.0
  ranks: tuple[int, ...] | None = None
  desirable: bool | None = None
  ref_logps: tuple[float, ...] | None = None

  @property
  def length(self) -> int:
    """Tokens it needs in a row: those of its longest candidate."""
    return max(map(len, self.tokens))


@dataclasses.dataclass(frozen=True)
class Draft:
  """An example before it is tokenised: texts, spans to learn, and labels."""

  texts: tuple[str, ...]
  spans: tuple[list[tuple[int, int]], ...]
  raw: bool = False
  labels: dict = dataclasses.field(default_factory=dict)


def shift(tokens: np.ndarray, learned: np.ndarray) -> dict[str, np.ndarray]:
  """The one place where targets are moved against inputs.

      tokens   A  B  C  D        learned  -  -  x  x
      inputs   A  B  C  D
      targets  B  C  D  0        mask     -  x  x  -

  The last token stays among the inputs, without a target: a reward model reads
  it, at (last masked position) + 1.

  Args:
    tokens: one document, [n].
    learned: which of its tokens the model has to write, [n].

  Returns:
    `inputs`, `targets` and `mask`, [n].
  """
  return {
    'inputs': tokens,
    'targets': np.append(tokens[1:], np.int32(0)),
    'mask': np.append(learned[1:], False),
  }


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
  if 'text' in row:
    text = row['text']
    return [Draft((text,), ([(0, len(text))],), raw=True)]
  messages = row.get('messages', row.get('prompt'))
  if messages is None or 'chosen' in row or 'responses' in row:
    return None
  learned = [i for i, m in enumerate(messages) if m['role'] == 'assistant']
  first = learned[-1] if learned and turns == 'last' else 0
  tools = row.get('tools')
  text, spans = assistant_spans(template, messages, tools, first=first)
  return [Draft((text,), (spans,))]


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
    prompt = formats.before_response(row['messages'])
  elif 'prompt' in row:
    prompt = row['prompt']
  else:
    return None
  text = template.render(prompt, row.get('tools'), prompt=True)
  return [Draft((text,), ([],))]


def _candidates(row, template, responses, labels) -> Draft:
  """Responses to one prompt; only the turns after the prompt are learned."""
  prompt, tools = row['prompt'], row.get('tools')
  texts, spans = zip(
    *(
      assistant_spans(template, prompt + r, tools, first=len(prompt))
      for r in responses
    )
  )
  return Draft(texts, spans, labels=labels)


def tokenise(tokenizer, drafts: list[Draft], *, bos: bool) -> list[tuple]:
  """Tokens and learned flags of every candidate of every draft.

  Each text is tokenised once, whole, as the model will read it; a token is
  learned if all of its characters lie in one span. Raw text gets the beginning
  token if this tokenizer writes one, and the end token.
  """
  texts = [text for draft in drafts for text in draft.texts]
  encoded = tokenizer(
    texts,
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
    pairs = []
    for spans in draft.spans:
      ids, offsets = next(encodings)
      tokens, learned = np.array(ids, np.int32), _inside(offsets, spans)
      if draft.raw:
        tokens, learned = _as_document(tokens, learned, tokenizer, bos=bos)
      pairs.append((tokens, learned))
    results.append(tuple(zip(*pairs)))
  return results


def _inside(offsets, spans) -> np.ndarray:
  offsets = np.array(offsets, np.int64).reshape(-1, 2)
  learned = np.zeros(len(offsets), bool)
  for start, end in spans:
    learned |= (offsets[:, 0] >= start) & (offsets[:, 1] <= end)
  return learned


def _as_document(tokens, learned, tokenizer, *, bos: bool):
  if bos:
    tokens = np.append(np.int32(tokenizer.bos_token_id), tokens)
    learned = np.append(False, learned)
  if tokenizer.eos_token_id is not None:
    tokens = np.append(tokens, np.int32(tokenizer.eos_token_id))
    learned = np.append(learned, True)
  return tokens, learned


def windows(tokens, learned, length: int) -> list[tuple]:
  """A document as pieces of a length, so that every token is a target once.

  The last token of a piece is the first of the next: it is predicted in the
  one and only read in the other.
  """
  starts = range(0, max(len(tokens) - 1, 1), length - 1)
  return [(tokens[i : i + length], learned[i : i + length]) for i in starts]
