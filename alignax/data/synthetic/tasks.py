"""The task families: how an instance is drawn, solved and asked for.

A family is plain things: what its instances are `about` (a list of nouns, a
list of numbers, or '' for facts), `draw(rng, words)` for the slots of an
instance, `solve(slots)` for the words of its answer, `phrasings` for the ways
to ask (the last is held out of training by default) and how plain text makes a
`statement` of it. To add a family is to add an entry to `FAMILIES`.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from alignax.data.synthetic import words as w


class Family(NamedTuple):
  about: str
  draw: Callable[[random.Random, list[str]], dict[str, list[str]]]
  solve: Callable[[dict[str, list[str]]], list[str]]
  phrasings: tuple[str, ...]
  statement: str


def draw_words(rng: random.Random, about: str) -> list[str]:
  """Draws what an instance is about; of nouns, now and then a near miss."""
  if not about:
    return []
  if about == 'numbers':
    return rng.sample(w.NUMBERS[:10], rng.randint(2, 3))
  words = rng.sample(w.NOUNS, rng.randint(2, 3))
  if rng.random() < 0.1:
    words[rng.randrange(len(words))] = rng.choice(w.NEAR_MISSES)
  return words


_words = lambda rng, words: {'words': words}


def _sum(rng, _):
  a = rng.randint(0, 7)
  return {'a': [str(a)], 'b': [str(rng.randint(0, 7 - a))]}


def _difference(rng, _):
  a = rng.randint(0, 7)
  return {'a': [str(a)], 'b': [str(rng.randint(0, a))]}


def _step(rng, _):
  return {'a': [rng.choice(rng.choice([w.NUMBERS[:-1], w.DAYS]))]}


def _next(slots):
  a = slots['a'][0]
  if a in w.DAYS:
    return [w.DAYS[(w.DAYS.index(a) + 1) % 7]]
  return [str(int(a) + 1)]


def _select(rng, words):
  """A category that exactly one of the words has."""
  found = [
    c
    for c, members in w.CATEGORIES.items()
    if sum(x in members for x in words) == 1
  ]
  if not found:
    return _select(rng, draw_words(rng, 'nouns'))
  return {'words': words, 'category': [rng.choice(found)]}


def _member(rng, _):
  category, other = rng.sample(list(w.CATEGORIES), 2)
  source = rng.choice([category, other])
  return {'a': [rng.choice(w.CATEGORIES[source])], 'category': [category]}


def _is_member(slots):
  members = w.CATEGORIES[slots['category'][0]]
  return ['yes' if slots['a'][0] in members else 'no']


def _times(rng, _):
  return {'a': [rng.choice(w.NOUNS)], 'n': [str(rng.randint(2, 4))]}


def _name(rng, _):
  """Any members of a category but one: of many right answers, one is picked."""
  category, n = rng.choice(list(w.CATEGORIES)), rng.randint(2, 3)
  but, *picked = rng.sample(w.CATEGORIES[category], n + 1)
  return {
    'n': [str(n)],
    'plural': [w.PLURALS[category]],
    'a': [but],
    'picked': picked,
  }


_numeric = lambda words: sorted(words, key=int)

FAMILIES = {
  'copy': Family(
    'nouns',
    _words,
    lambda s: s['words'],
    (
      'repeat {words}',
      'say {words}',
      'copy {words}',
      'write {words} again',
      'echo {words}',
    ),
    'a copy of {words} is {answer} .',
  ),
  'reverse': Family(
    'nouns',
    _words,
    lambda s: s['words'][::-1],
    (
      'reverse {words}',
      'write {words} backwards',
      'what is the reverse of {words} ?',
      'turn {words} around',
      'say {words} backwards',
    ),
    'the reverse of {words} is {answer} .',
  ),
  'sort': Family(
    'numbers',
    _words,
    lambda s: _numeric(s['words']),
    (
      'sort {words}',
      'put {words} in order',
      'write {words} from low to high',
      'order the numbers {words}',
      'what is the order of {words} ?',
    ),
    'the order of {words} is {answer} .',
  ),
  'count': Family(
    'nouns',
    _words,
    lambda s: [str(len(s['words']))],
    (
      'count {words}',
      'how many words are in {words} ?',
      'count the words in {words}',
      'how long is the list {words} ?',
      'what is the number of words in {words} ?',
    ),
    'the number of words in {words} is {answer} .',
  ),
  'add': Family(
    '',
    _sum,
    lambda s: [str(int(s['a'][0]) + int(s['b'][0]))],
    (
      'what is {a} + {b} ?',
      'add {a} and {b}',
      'compute {a} + {b}',
      'what is the sum of {a} and {b} ?',
      'how much is {a} + {b} ?',
    ),
    'the sum of {a} + {b} is {answer} .',
  ),
  'subtract': Family(
    '',
    _difference,
    lambda s: [str(int(s['a'][0]) - int(s['b'][0]))],
    (
      'what is {a} - {b} ?',
      'take {b} from {a}',
      'compute {a} - {b}',
      'what is left of {a} - {b} ?',
      'how much is {a} - {b} ?',
    ),
    'the result of {a} - {b} is {answer} .',
  ),
  'select': Family(
    'nouns',
    _select,
    lambda s: [x for x in s['words'] if x in w.CATEGORIES[s['category'][0]]],
    (
      'which of {words} is a {category} ?',
      'find the {category} in {words}',
      'select the {category} from {words}',
      'what {category} is in {words} ?',
      'which {category} is in {words} ?',
    ),
    'the {category} in {words} is {answer} .',
  ),
  'first': Family(
    'nouns',
    _words,
    lambda s: s['words'][:1],
    (
      'what is the first of {words} ?',
      'give the first word of {words}',
      'which word starts {words} ?',
      'say only the first of {words}',
      'find the first word in {words}',
    ),
    'the first of {words} is {answer} .',
  ),
  'last': Family(
    'nouns',
    _words,
    lambda s: s['words'][-1:],
    (
      'what is the last of {words} ?',
      'give the last word of {words}',
      'which word ends {words} ?',
      'say only the last of {words}',
      'find the last word in {words}',
    ),
    'the last of {words} is {answer} .',
  ),
  'largest': Family(
    'numbers',
    _words,
    lambda s: _numeric(s['words'])[-1:],
    (
      'what is the largest of {words} ?',
      'give the largest of {words}',
      'find the largest in {words}',
      'which of {words} is largest ?',
      'say only the largest of {words}',
    ),
    'the largest of {words} is {answer} .',
  ),
  'smallest': Family(
    'numbers',
    _words,
    lambda s: _numeric(s['words'])[:1],
    (
      'what is the smallest of {words} ?',
      'give the smallest of {words}',
      'find the smallest in {words}',
      'which of {words} is smallest ?',
      'say only the smallest of {words}',
    ),
    'the smallest of {words} is {answer} .',
  ),
  'next': Family(
    '',
    _step,
    _next,
    (
      'what comes after {a} ?',
      'say what comes after {a}',
      'what is next after {a} ?',
      'which one follows {a} ?',
      'give what follows {a}',
    ),
    'what comes after {a} is {answer} .',
  ),
  'member': Family(
    '',
    _member,
    _is_member,
    (
      'is {a} a {category} ?',
      'say if {a} is a {category}',
      'find out if {a} is a {category}',
      'does {a} count as a {category} ?',
      'would you say {a} is a {category} ?',
    ),
    '{a} is a {category} : {answer} .',
  ),
  'times': Family(
    '',
    _times,
    lambda s: s['a'] * int(s['n'][0]),
    (
      'say {a} {n} times',
      'write {a} {n} times',
      'repeat {a} {n} times',
      'give {n} times the word {a}',
      'echo {a} {n} times',
    ),
    'the word {a} written {n} times is {answer} .',
  ),
  'name': Family(
    '',
    _name,
    lambda s: s['picked'],
    (
      'name {n} {plural} but not {a}',
      'give me {n} {plural} but not {a}',
      'list {n} {plural} but not {a}',
      'say {n} {plural} but not {a}',
      'what are {n} {plural} but not {a} ?',
    ),
    'a list of {n} {plural} but not {a} is {answer} .',
  ),
}

# Families made of others: a format on top of a list task, a request to refuse
# (or to not refuse), and a second turn about the answer of the first.
LISTS = ('copy', 'reverse', 'sort')
ABOUT_NOUNS = ('copy', 'reverse', 'first', 'last', 'count')
FOLLOW_UPS = {
  'reverse': ('now reverse it', 'now write it backwards'),
  'first': ('now give only the first', 'what is the first of that ?'),
  'last': ('now give only the last', 'what is the last of that ?'),
  'commas': ('now write it with commas', 'now say it using commas'),
}
COMPOSED = ('format', 'refuse', 'benign', 'followup')
TASKS = (*FAMILIES, *COMPOSED)
# The families as they are drawn: what must be refused, and what only sounds so,
# takes more examples than the rest.
MIX = (*TASKS, 'refuse', 'benign')
