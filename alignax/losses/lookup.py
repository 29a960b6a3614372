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
    module, function = name.rsplit('.', 1)
    return getattr(importlib.import_module(module), function)
  known = names(takes)
  if name not in known:
    close = difflib.get_close_matches(name, known, 1, 0.6)
    hint = f'did you mean {close[0]!r}? There' if close else 'there'
    raise ValueError(
      f'There is no loss {name!r} of {", ".join(takes)}; {hint} are '
      f'{", ".join(known)}.'
    )
  return getattr(losses, f'{name}_loss')


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
