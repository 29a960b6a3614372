"""Checks of what the values of a config are: numbers, and names.

Its keys are checked in `checks.py`, what lies on disk in `check_paths.py`.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignax import checks, sampling
from alignax.data.formats import FORMATS
from alignax.data.templates import BUILT_IN
from alignax.evals import samples


class Number(NamedTuple):
  """What a number of a config is to be."""

  holds: Callable[[Any], bool]
  wanted: str


def whole(least: int, why: str = '') -> Number:
  """A whole number, as one counts with."""
  holds = lambda x: isinstance(x, Integral) and x >= least
  return Number(holds, f'a whole number, at least {least}{why}')


NUMBERS = {
  'total_steps': whole(1),
  'max_skipped': whole(0),
  'ema_decay': Number(
    lambda x: isinstance(x, Real) and 0 <= x < 1,
    'a number from 0, for no average, to below 1',
  ),
  'data.length': whole(2),
  'data.batch_size': whole(1),
  'data.heldout': whole(0),
  'data.ptx_length': whole(0, ' (0: that of the data)'),
  'data.ptx_batch_size': whole(0, ' (0: that of the data)'),
  'optimizer.learning_rate': Number(
    lambda x: isinstance(x, Real) and 0 <= x < math.inf,
    'a finite number, at least 0',
  ),
  'optimizer.warmup_steps': whole(0),
  'optimizer.decay_steps': whole(0),
  'checkpoint.every': whole(0, ' (0: at the end only)'),
  'checkpoint.keep': whole(1, ', or nothing is left of the run'),
  'checkpoint.keep_best': whole(0),
  'log.every': whole(1),
  'evals.every': whole(0, ' (0: at the start and end only)'),
  'evals.samples': whole(0),
  'evals.probes.every': whole(0, ' (0: none)'),
  'evals.probes.prompts': whole(0),
  'evals.probes.per_prompt': whole(1),
  'evals.probes.text_length': whole(0, ' (0: that of the data)'),
  'evals.probes.sycophancy': whole(0),
}
NAMES = {
  'data.format': FORMATS,
  'data.turns': ('all', 'last'),
  'data.on_bad_row': ('skip', 'raise'),
}
# Arguments by which algorithms count, where they take them.
COUNTS = (
  'max_new_tokens', 'group', 'rounds', 'epochs', 'minibatches', 'microbatches',
)  # fmt: skip
DRAW = ('temperature', 'top_k', 'top_p', 'stop_ids')  # Of `make_sampling`.
BOOLS = ('desirable', 'mask', 'own_wins')  # Arrays of losses; others: floats.


def check(config):
  """Raises for values that would be found wrong only while a run trains."""
  for key, number in NUMBERS.items():
    *path, last = key.split('.')
    section = functools.reduce(lambda part, key: part[key], path, config)
    if last in section:  # Optimisers have defaults.
      check_number(key, section[last], number)
  for key, known in NAMES.items():
    section, last = key.split('.')
    check_name(key, config[section][last], known)
  for name, source in (config.data.get('mixture') or {}).items():
    check_name(f'data.mixture.{name}.format', source.get('format'), FORMATS)
  check_template(config.data.template)
  given = config.evals.sampling
  given = {key: given[key] for key in samples.SAMPLING if key in given}
  with values_of('evals.sampling'):
    sampling.make_sampling(**given)


def check_number(key: str, value, number: Number):
  if not number.holds(value):
    raise ValueError(f'{key} is {value!r}; give {number.wanted}.')


def check_name(key: str, value, known):
  """Raises for a name that is none of those known, but for an empty one."""
  if value and value not in known:
    raise ValueError(f'{key} is {value!r}{checks.nearest(str(value), known)}.')


def check_template(template: str):
  """Raises for a name that no template has; other text is Jinja."""
  if '{' not in template:
    check_name('data.template', template, BUILT_IN)


def check_arguments(algorithm, kw: dict):
  """Raises for values of `config.algorithm_kw` that its step would refuse."""
  for name in COUNTS:
    if name in kw:
      check_number(f'algorithm_kw.{name}', kw[name], whole(1))
  taken = inspect.signature(algorithm.make_step).parameters
  with values_of('algorithm_kw'):
    if taken.keys() >= set(DRAW):
      sampling.make_sampling(**{key: kw[key] for key in DRAW if key in kw})
    if 'loss_kw' in taken:
      name = kw.get('loss', taken['loss'].default)
      loss_kw = {key: kw[key] for key in kw if key not in taken}
      trace(algorithm.find_loss(name), loss_kw)
    if hasattr(algorithm, 'check_kw'):
      algorithm.check_kw(**kw)


@contextlib.contextmanager
def values_of(section: str):
  """Errors of what looks at its own arguments say where those are set."""
  try:
    yield
  except (ValueError, TypeError) as error:
    raise ValueError(f'{section}: {error}') from error


def trace(loss, kw: dict):
  """Has a loss look at its hyper-parameters; nothing is computed."""
  if not loss.__module__.startswith('alignax.'):
    return  # What one of your own is called with, it alone knows.
  arrays = [
    jax.ShapeDtypeStruct((1, 1), bool if p.name in BOOLS else jnp.float32)
    for p in inspect.signature(loss).parameters.values()
    if p.kind != p.KEYWORD_ONLY and p.default is p.empty
  ]
  jax.eval_shape(functools.partial(loss, **kw), *arrays)
