"""Rows of the synthetic world, in the standard formats of the data layer.

Every row is a function of (name, seed, index) alone. The instruction's own
fields ride along as metadata, which is all that `gold_score` needs.
"""

import random

from alignax.data.synthetic.annotators import prefer, rank
from alignax.data.synthetic.instructions import PHRASINGS, instruction
from alignax.data.synthetic.responses import CLEAN, MIXED, respond
from alignax.data.synthetic.scorer import gold_score
from alignax.data.synthetic.tasks import MIX, TASKS
from alignax.data.synthetic.text import document
from alignax.data.synthetic.tools import tool_conversation

CLASS_PROMPTS = ('right', 'wrong')  # What the system says to every class.


def rows(
  name: str,
  *,
  n: int = 1000,
  seed: int = 0,
  split: str = 'train',
  tasks=MIX,
  phrasings='train',
  quality=MIXED,
  candidates: int = 4,
  noise: float = 0.1,
  length_bias: float = 0.0,
  sycophancy: float = 0.0,
  opinions: float = 0.0,
  length: int = 63,
  experts: float = 0.3,
) -> list[dict]:
  """Draws `n` rows of the data set `name`.

  Args:
    name: 'text' {text}; 'demonstrations' {messages}; 'classes' {messages,
      class}, of experts and others; 'tools' {messages, tools}, with a call;
      'prompts' {prompt};
      'preferences' {prompt, chosen, rejected}; 'rankings' {prompt, responses,
      ranks}; 'unpaired' {prompt, completion, label}. Prompts and responses are
      lists of messages.
    n: number of rows.
    seed: two seeds share no row but by accident.
    split: 'train' | 'heldout': instances of the two are disjoint.
    tasks: families to draw from (a tuple, or names separated by commas).
    phrasings: 'train' | 'heldout' | 'all', or the indices of wordings ('0,2').
    quality: shares of concise, wordy and flawed responses; or 'clean', or as
      text: '0.2,0.3,0.5'.
    candidates: number of responses of a ranking.
    noise: of the annotators, as their other two: see `annotators.utility`.
    length_bias: log-odds that a word more is worth to the annotators.
    sycophancy: log-odds that agreeing with the user is worth to them.
    opinions: share of prompts whose user states a wrong opinion.
    length: most words in a document of 'text'.
    experts: share of 'classes' that is of class 0.
  """
  if name not in _MAKERS:
    raise ValueError(
      f'No synthetic data set {name!r}; there are: {", ".join(_MAKERS)}.'
    )
  kw = dict(
    ask=dict(
      split=split,
      tasks=_tasks(tasks),
      opinions=opinions,
      phrasings=_numbers(PHRASINGS.get(str(phrasings), phrasings), int),
    ),
    bias=dict(noise=noise, length_bias=length_bias, sycophancy=sycophancy),
    quality=CLEAN if quality == 'clean' else _numbers(quality, float),
    candidates=candidates,
    length=length,
    experts=experts,
  )
  # Strings seed `random` the same on every machine and Python version.
  return [
    _MAKERS[name](random.Random(f'{name}/{split}/{seed}/{i}'), **kw)
    for i in range(n)
  ]


def _tasks(tasks):
  names = tuple(tasks.split(',') if isinstance(tasks, str) else tasks)
  unknown = [x for x in names if x not in TASKS]
  if unknown:
    raise ValueError(
      f'No task family {unknown[0]!r}; there are: {", ".join(TASKS)}.'
    )
  return names


def _numbers(given, kind):
  """Numbers of a tuple or, as a path has them, of a text: '0,2'."""
  listed = given.split(',') if isinstance(given, str) else given
  listed = listed if isinstance(listed, tuple | list) else [listed]
  try:
    return tuple(kind(x) for x in listed)
  except ValueError:
    raise ValueError(
      f'{given!r}: expected {kind.__name__} numbers with commas between.'
    ) from None


def _assistant(text):
  return [dict(role='assistant', content=text)]


def _text(rng, *, length, **_):
  return {'text': document(rng, length=length)}


def _prompt(rng, *, ask, **_):
  return instruction(rng, **ask)


def _demonstration(rng, *, ask, quality, **_):
  row = instruction(rng, **ask)
  messages = row.pop('prompt') + _assistant(respond(rng, row, quality))
  return {'messages': messages, **row}


def _classed(rng, *, ask, experts, **_):
  """Class 0 answers right and briefly, class 1 anyhow; each has its prompt."""
  row = instruction(rng, **ask)
  number = int(rng.random() >= experts)
  quality = CLEAN if number == 0 else (0, 1, 1)
  told = [dict(role='system', content=CLASS_PROMPTS[number])]
  messages = told + row.pop('prompt') + _assistant(respond(rng, row, quality))
  return {'messages': messages, 'class': number, **row}


def _preference(rng, *, ask, bias, **_):
  row = instruction(rng, **ask)
  pair = _different(rng, row, 2)
  index, p = prefer(row, *pair, rng=rng, **bias)
  chosen, rejected = pair[index], pair[1 - index]
  return {
    **row,
    'chosen': _assistant(chosen),
    'rejected': _assistant(rejected),
    'probability': p if index == 0 else 1 - p,
    'gold_margin': (
      gold_score(row, chosen)['total'] - gold_score(row, rejected)['total']
    ),
  }


def _ranking(rng, *, ask, bias, candidates, **_):
  row = instruction(rng, **ask)
  responses = _different(rng, row, candidates)
  return {
    **row,
    'responses': [_assistant(x) for x in responses],
    'ranks': rank(row, responses, rng=rng, **bias),
  }


def _unpaired(rng, *, ask, bias, **_):
  """A response is good when it is preferred over another draw."""
  row = instruction(rng, **ask)
  response, other = _different(rng, row, 2)
  index, _ = prefer(row, response, other, rng=rng, **bias)
  return {**row, 'completion': _assistant(response), 'label': index == 0}


def _different(rng, row, n):
  """`n` different responses, flawed ones as likely as good ones."""
  found: list[str] = []
  while len(found) < n:
    text = respond(rng, row, (1, 1, 1))
    if text not in found:
      found.append(text)
  return found


_MAKERS = {
  'text': _text,
  'prompts': _prompt,
  'demonstrations': _demonstration,
  'classes': _classed,
  'tools': tool_conversation,
  'preferences': _preference,
  'rankings': _ranking,
  'unpaired': _unpaired,
}
