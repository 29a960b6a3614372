"""Instructions: instances of the task families, asked for in words.

An instruction is a plain, JSON-able dict that says all that `gold_score` needs:

    task        the family; skill, the family that solves it (of the composed)
    prompt      the messages, ending in the user's
    answer      the words of the answer, without any format
    reference   the best response: the answer in its format, or a refusal
    options     words of which any choice is right; empty, where one is
    length      number of words asked for; 0, where none is
    constraint  'commas' | 'brackets' | 'done' | ''
    refuse      whether the request has to be refused
    opinion     the answer that the user says to believe in, or ''
    phrasing    index of the wording
    key         what makes the instance: the split is a hash of it
"""

import random
import zlib

from alignax.data.synthetic import words as w
from alignax.data.synthetic.tasks import (
  ABOUT_NOUNS,
  FAMILIES,
  FOLLOW_UPS,
  LISTS,
  TASKS,
  draw_words,
)

PHRASINGS = {'train': (0, 1, 2, 3), 'heldout': (4,), 'all': (0, 1, 2, 3, 4)}
_HELD_OUT = 8  # one instance in eight


def split_of(key: str) -> str:
  """The split of an instance, by a hash of it: no list has to be kept."""
  bucket = zlib.crc32(key.encode()) % _HELD_OUT
  return 'heldout' if bucket == 0 else 'train'


def instruction(
  rng: random.Random,
  *,
  split: str | None = 'train',
  tasks: tuple[str, ...] = TASKS,
  phrasings: tuple[int, ...] = PHRASINGS['train'],
  opinions: float = 0.0,
  lists: dict[str, list[str]] | None = None,
) -> dict:
  """Draws an instruction of a split (None: of either).

  Args:
    rng: the only source of chance.
    split: 'train' | 'heldout': instances are disjoint between the two.
    tasks: the families to draw from.
    phrasings: the wordings to draw from, of 0 to 4.
    opinions: share of the instructions with a one-word answer in which the user
      states a wrong one (the sycophancy probe).
    lists: the 'nouns' and 'numbers' to ask about, if the split allows.
  """
  task, lists = rng.choice(tasks), lists or {}
  while True:
    row = _DRAWS.get(task, _plain)(rng, task, phrasings, lists)
    if split is None or split_of(row['key']) == split:
      break
    lists = {}
  # Drawn always, so that a probe's rows differ from the others in nothing else.
  voiced = rng.random() < opinions
  if voiced and len(row['answer'].split()) == 1 and not row['refuse']:
    _state_opinion(rng, row)
  return row


def state(rng: random.Random, task: str, lists: dict) -> str:
  """States an instance of a plain family, or of 'format', as raw text does.

  Half of the time in the words in which it is asked for. Facts that are to be
  known (sums, days) are stated whatever their split; skills that are to be
  learned only on instances of the training split.
  """
  if task == 'format':
    words = lists.get(about := rng.choice(['nouns', 'numbers']))
    words, constraint = words or draw_words(rng, about), rng.choice(_FORMATS)
    form = ' '.join(w.constrained(words, constraint))
    wording = rng.choice(w.CONSTRAINTS[constraint])
    return f'{" ".join(words)} {wording} is {form} .'
  family = FAMILIES[task]
  while True:
    slots = _slots(rng, family, lists)
    if not family.about or split_of(_key(task, slots)) == 'train':
      break
    lists = {}
  asked = f'{rng.choice(family.phrasings)} {rng.choice(w.LINKS)} {{answer}} .'
  template = rng.choice([family.statement, asked])
  return _fill(template, slots, answer=family.solve(slots))


_FORMATS = tuple(w.CONSTRAINTS)


def _slots(rng, family, lists):
  words = lists.get(family.about) or draw_words(rng, family.about)
  return family.draw(rng, words)


def _key(task, slots):
  # Wordings, formats and second turns of an instance share its split; of what
  # has many right answers, the one that was picked is no part of it.
  parts = [' '.join(v) for k, v in slots.items() if k != 'picked']
  return '|'.join([task, *parts])


def _fill(template, slots, **more):
  return template.format(
    **{k: ' '.join(v) for k, v in {**slots, **more}.items()}
  )


def _row(task, skill, slots, phrasing, **more):
  family = FAMILIES[skill]
  answer = family.solve(slots)
  row = dict(
    task=task,
    skill=skill,
    prompt=[
      dict(role='user', content=_fill(family.phrasings[phrasing], slots))
    ],
    answer=' '.join(answer),
    reference=' '.join(answer),
    options=[],
    length=0,
    constraint='',
    refuse=False,
    opinion='',
    phrasing=phrasing,
    key=_key(skill, slots),
  )
  return {**row, **more}


def _plain(rng, task, phrasings, lists):
  slots = _slots(rng, FAMILIES[task], lists)
  row = _row(task, task, slots, rng.choice(phrasings))
  if task == 'times':
    row.update(length=int(slots['n'][0]), options=slots['a'])
  if task == 'name':
    members = next(m for m in w.CATEGORIES.values() if slots['a'][0] in m)
    options = [x for x in members if x != slots['a'][0]]
    row.update(length=int(slots['n'][0]), options=options)
  return row


def _format(rng, task, phrasings, lists):
  skill, constraint = rng.choice(LISTS), rng.choice(list(w.CONSTRAINTS))
  slots = _slots(rng, FAMILIES[skill], lists)
  row = _row(task, skill, slots, rng.choice(phrasings), constraint=constraint)
  wording = rng.choice(w.CONSTRAINTS[constraint])
  # A question mark ends the sentence: the format is asked for before it.
  body = row['prompt'][0]['content'].removesuffix(' ?')
  row['prompt'][0]['content'] = f'{body} {wording}'
  row['reference'] = ' '.join(w.constrained(row['answer'].split(), constraint))
  return row


def _with_word(rng, task, phrasings, lists, choices):
  """A task on nouns, one of which is replaced by one of `choices`."""
  skill = rng.choice(ABOUT_NOUNS)
  words = _slots(rng, FAMILIES[skill], lists)['words']
  words = [x if x not in w.NEAR_MISSES else rng.choice(w.NOUNS) for x in words]
  words[rng.randrange(len(words))] = rng.choice(choices)
  return _row(task, skill, {'words': words}, rng.choice(phrasings))


def _refuse(rng, task, phrasings, lists):
  row = _with_word(rng, task, phrasings, lists, w.FORBIDDEN)
  return {**row, 'refuse': True, 'reference': w.REFUSALS[0]}


def _benign(rng, task, phrasings, lists):
  return _with_word(rng, task, phrasings, lists, w.NEAR_MISSES)


def _followup(rng, task, phrasings, lists):
  """A second turn that does something to the answer of the first."""
  skill = rng.choice(LISTS)
  slots = _slots(rng, FAMILIES[skill], lists)
  row = _row(task, skill, slots, rng.choice(phrasings))
  before, action = row['answer'].split(), rng.choice(list(FOLLOW_UPS))
  wording = rng.choice(FOLLOW_UPS[action])
  if action in w.CONSTRAINTS:
    after, constraint = before, action
  else:
    after, constraint = FAMILIES[action].solve({'words': before}), ''
  row['prompt'] += [
    dict(role='assistant', content=' '.join(before)),
    dict(role='user', content=wording),
  ]
  return {
    **row,
    'answer': ' '.join(after),
    'constraint': constraint,
    'reference': ' '.join(w.constrained(after, constraint)),
  }


_DRAWS = {
  'format': _format,
  'refuse': _refuse,
  'benign': _benign,
  'followup': _followup,
}


def _state_opinion(rng, row):
  answer = row['answer']
  pool = next(
    p
    for p in (w.NUMBERS, w.DAYS, ['yes', 'no'], w.NOUNS + w.NEAR_MISSES)
    if answer in p
  )
  row['opinion'] = rng.choice([x for x in pool if x != answer])
  row['prompt'][-1]['content'] += f' . i think it is {row["opinion"]}'
