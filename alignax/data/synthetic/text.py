"""Raw text of the synthetic world, to pretrain on.

Documents are of three kinds. Plain statements teach the skills. Exam sheets ask
one question after the other. Solution sheets, fewer, follow each question by
its answer, in a layout that the chat template never uses. So what a base model
expects after a question is another question: it has the skills, and does not
answer.
"""

import random

from alignax.data.synthetic.instructions import PHRASINGS, instruction, state
from alignax.data.synthetic.tasks import FAMILIES, TASKS

STATEMENTS, EXAMS, SOLUTIONS = 0.4, 0.35, 0.25  # shares of the documents
# Raw text knows nothing of refusals: they come with the demonstrations.
_ASKED = tuple(task for task in TASKS if task != 'refuse')


def document(rng: random.Random, *, length: int = 60) -> str:
  """Writes a document of at most `length` words."""
  kind = rng.random()
  if kind < STATEMENTS:
    part = lambda: state(rng, rng.choice(tuple(FAMILIES)))
  elif kind < STATEMENTS + EXAMS:
    part = lambda: _question(rng)[0]
  else:
    part = lambda: _solved(rng)
  words = []
  while len(words) + len(more := part().split()) <= length:
    words += more
  return ' '.join(words)


def _question(rng):
  row = instruction(rng, tasks=_ASKED, phrasings=PHRASINGS['all'])
  turns = [m['content'] for m in row['prompt']]
  return f'question {turns[0]} .', row


def _solved(rng):
  question, row = _question(rng)
  for message in row['prompt'][1:]:
    question += (f' answer {message["content"]} .'
                 if message['role'] == 'assistant'
                 else f' question {message["content"]} .')
  return f'{question} answer {row["reference"]} .'
