"""Losses by the names that configs give them."""

import difflib
import importlib
import inspect
from collections.abc import Callable

from alignax import losses


def find_loss(name: str, takes: tuple[str, ...]) -> Callable:
  """The loss that a config names.

  Args:
    name: 'dpo' for `alignax.dpo_loss`; or the dotted name of one of your own,
      'my_lab.my_loss', which is called just as those of alignax are.
    takes: the arrays that the loss is called with first, by argument name.

  Raises:
    ValueError: there is none of this name, or it takes other arrays.
  """
  if '.' in name:
    return dotted(name, 'loss')
  known = names(takes)
  if name not in known:
    of = f' of {", ".join(takes)}' if takes else ''
    raise ValueError(f'There is no loss {name!r}{of}; {nearest(name, known)}.')
  return getattr(losses, f'{name}_loss')


def nearest(name: str, known) -> str:
  """All names that there are, and which of them may have been meant."""
  close = difflib.get_close_matches(name, list(known), 1, 0.6)
  hint = f'did you mean {close[0]!r}? There' if close else 'there'
  return f'{hint} are {", ".join(known)}'


def dotted(name: str, what: str) -> Callable:
  """The function of a dotted name.

  Args:
    name: 'my_lab.my_loss'.
    what: it is, for the errors: 'loss', 'scorer'.

  Raises:
    ValueError: there is no such module, or no such function in it.
  """
  module, _, function = name.rpartition('.')
  if not module:
    raise ValueError(f'The {what} is {name!r}; give a dotted name, as a.b.c.')
  try:
    found = importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise ValueError(f'The {what} {name!r} is not found: {error}.') from error
  if not callable(getattr(found, function, None)):
    close = difflib.get_close_matches(function, dir(found), 1, 0.6)
    hint = f'; did you mean {module}.{close[0]}?' if close else '.'
    raise ValueError(f'There is no {what} {function!r} in {module}{hint}')
  return getattr(found, function)


def names(takes: tuple[str, ...]) -> list[str]:
  """Names of the losses that take these arrays first."""
  found = [n for n in dir(losses) if n.endswith('_loss')]
  return [
    n.removesuffix('_loss')
    for n in found
    if arguments(getattr(losses, n))[: len(takes)] == list(takes)
  ]


def arguments(loss: Callable) -> list[str]:
  """Names of all arguments of a loss."""
  return list(inspect.signature(loss).parameters)


def takes(loss: Callable) -> tuple[str, ...]:
  """Names of the arrays that a loss is called with first."""
  found = inspect.signature(loss).parameters.values()
  return tuple(p.name for p in found if p.kind != p.KEYWORD_ONLY)


def hyperparameters(loss: Callable) -> dict:
  """The keyword arguments of a loss that a config can give, with defaults."""
  found = inspect.signature(loss).parameters.values()
  keywords = [p for p in found if p.kind == p.KEYWORD_ONLY]
  return {p.name: p.default for p in keywords if p.default is not None}
