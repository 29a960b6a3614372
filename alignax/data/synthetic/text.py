"""Raw text of the synthetic world, to pretrain on.

Documents are of three kinds. Plain statements teach the skills. Exam sheets ask
one question after the other. Solution sheets, fewer, follow each question by
its answer, in a layout that the chat template never uses. So what a base model
expects after a question is another question: it has the skills, and does not
answer. A document keeps coming back to the same two lists, as a worksheet does:
what is repeated can be predicted by looking it up, and a model that has little
to read learns to look things up much sooner from it. Sheets come in several
layouts, so that a skill does not hang on the word before the answer: a chat
template is one layout more.
"""

import random

from alignax.data.synthetic import words as w
from alignax.data.synthetic.instructions import PHRASINGS, instruction, state
from alignax.data.synthetic.responses import wrapped
from alignax.data.synthetic.tasks import FAMILIES, TASKS, draw_words

STATEMENTS, EXAMS, SOLUTIONS = 0.5, 0.25, 0.25  # shares of the documents
RETURNING = 0.7  # share of the parts that are about the document's lists
# What stands before a question, before its answer, and after either. Half of
# the sheets use symbols of their own instead.
LAYOUTS = (
  ('question', 'answer', '.'),
  ('task :', 'result :', ''),
  ('ask', 'reply', '!'),
  ('exercise', 'solution', '.'),
)
SYMBOLS = ('#', '*', '>', '~', '@', '%', '&', '=', '/', '|', '^', '$')
SIGNS = ('.', '', '!', ',', *SYMBOLS[:4])
WORDY = 0.25  # share of the solutions that are politely wrapped
CHATTER = 0.1  # share of the statements that state nothing
# What takes most practice comes twice as often.
HARD = ('reverse', 'member', 'subtract', 'format', 'followup')
# Nobody refuses in raw text: refusals come with the demonstrations.
_ASKED = tuple(task for task in TASKS if task != 'refuse') + HARD
_STATED = (*FAMILIES, 'reverse', 'member', 'subtract', 'format')


def document(rng: random.Random, *, length: int = 63) -> str:
  """Writes a document of at most `length` words."""
  if length < 20:
    raise ValueError(
      f'A document of {length} words has no room for a solved '
      'question; give it a length of 20 or more.'
    )
  write = rng.choices(
    (_statement, _question, _solved), (STATEMENTS, EXAMS, SOLUTIONS)
  )[0]
  lists = {about: draw_words(rng, about) for about in ('nouns', 'numbers')}
  layout = _layout(rng)
  words: list[str] = []
  while True:
    returns = rng.random() < RETURNING
    more = write(rng, lists if returns else {}, layout).split()
    if len(words) + len(more) <= length:
      words += more
    elif words:
      return ' '.join(words)


def _layout(rng):
  if rng.random() < 0.5:
    return rng.choice(LAYOUTS)
  return (*rng.sample(SYMBOLS, 2), rng.choice(SIGNS))


def _statement(rng, lists, _):
  if rng.random() < CHATTER:
    return f'{rng.choice(w.CHATTER)} .'
  return state(rng, rng.choice(_STATED), lists)


def _ask(rng, lists):
  return instruction(rng, tasks=_ASKED, phrasings=PHRASINGS['all'], lists=lists)


def _question(rng, lists, layout):
  return _turn('user', _ask(rng, lists)['prompt'][0]['content'], layout)


def _solved(rng, lists, layout):
  row = _ask(rng, lists)
  answer = row['reference']
  if rng.random() < WORDY:
    answer = wrapped(rng, answer)
  turns = [*row['prompt'], dict(role='assistant', content=answer)]
  return ' '.join(_turn(m['role'], m['content'], layout) for m in turns)


def _turn(role, content, layout):
  question, answer, sign = layout
  return f'{question if role == "user" else answer} {content} {sign}'.strip()
