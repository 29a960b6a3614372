"""Raw text of the synthetic world, to pretrain on.

Documents are of three kinds. Plain statements teach the skills. Exam sheets ask
one question after the other. Solution sheets, fewer, follow each question by
its answer, in a layout that the chat template never uses. So what a base model
expects after a question is another question: it has the skills, and does not
answer. A document keeps coming back to the same two lists, as a worksheet does:
what is repeated can be predicted by looking it up, and a model that has little
to read learns to look things up much sooner from it.
"""

import random

from alignax.data.synthetic.instructions import PHRASINGS, instruction, state
from alignax.data.synthetic.tasks import FAMILIES, TASKS, draw_words

STATEMENTS, EXAMS, SOLUTIONS = 0.5, 0.25, 0.25  # shares of the documents
RETURNING = 0.7  # share of the parts that are about the document's lists
# Raw text knows nothing of refusals: they come with the demonstrations.
_ASKED = tuple(task for task in TASKS if task != 'refuse')


def document(rng: random.Random, *, length: int = 60) -> str:
  """Writes a document of at most `length` words."""
  write = rng.choices((_statement, _question, _solved),
                      (STATEMENTS, EXAMS, SOLUTIONS))[0]
  lists = {about: draw_words(rng, about) for about in ('nouns', 'numbers')}
  words: list[str] = []
  while True:
    more = write(rng, lists if rng.random() < RETURNING else {}).split()
    if len(words) + len(more) > length:
      return ' '.join(words)
    words += more


def _statement(rng, lists):
  return state(rng, rng.choice(tuple(FAMILIES)), lists)


def _ask(rng, lists):
  return instruction(
      rng, tasks=_ASKED, phrasings=PHRASINGS['all'], lists=lists)


def _question(rng, lists):
  return f'question {_ask(rng, lists)["prompt"][0]["content"]} .'


def _solved(rng, lists):
  row = _ask(rng, lists)
  heads = {'user': 'question', 'assistant': 'answer'}
  turns = [*row['prompt'], dict(role='assistant', content=row['reference'])]
  return ' '.join(f'{heads[m["role"]]} {m["content"]} .' for m in turns)
