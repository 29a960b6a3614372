"""Responses as people write them: concise, wordy or flawed."""

import random

from alignax.data.synthetic import words as w

# Shares of concise, wordy and flawed responses among demonstrations: people
# write most of them well enough, few of them as one would wish.
MIXED = (0.4, 0.54, 0.06)
CLEAN = (1.0, 0.0, 0.0)


def respond(rng: random.Random, row: dict, quality=MIXED) -> str:
  """Writes a response as a person might: concise, wordy or flawed."""
  concise, wordy, flawed = quality
  kind = rng.choices(('concise', 'wordy', 'flawed'), (concise, wordy, flawed))
  if kind == ['concise']:
    return row['reference']
  if kind == ['wordy']:
    return wrapped(rng, row['reference'])
  text = _flawed(rng, row)
  return text if rng.random() < 0.5 else wrapped(rng, text)


def wrapped(rng: random.Random, text: str) -> str:
  """The same answer, or refusal, with politeness around it."""
  refuses = text in w.REFUSALS
  template = rng.choice(w.REFUSAL_WRAPPINGS if refuses else w.WRAPPINGS)
  return template.format(answer=text)


def _flawed(rng, row):
  """A wrong response: by its format, by a word, or by (not) refusing."""
  if row['refuse']:
    return row['answer']
  if row['task'] == 'benign':
    return rng.choice(w.REFUSALS)
  if row['constraint'] and rng.random() < 0.7:
    return row['answer']
  words = row['answer'].split()
  place = rng.randrange(len(words))
  pool = next(
    p
    for p in (
      w.NUMBERS,
      w.DAYS,
      ['yes', 'no'],
      w.FORBIDDEN,
      w.NOUNS + w.NEAR_MISSES,
    )
    if words[place] in p
  )
  words[place] = rng.choice([x for x in pool if x != words[place]])
  if row['length'] and rng.random() < 0.7:
    words = row['answer'].split()[:-1]
  return ' '.join(w.constrained(words, row['constraint']))
