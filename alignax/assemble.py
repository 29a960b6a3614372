"""From a config to the parts of a run that an algorithm has a say in.

What it reads and starts from is in `reading.py` and `role_params.py`. These,
`run.py` and `cli/` are the only places that read configs. All of it fails
before the first compilation, and says what to change.
"""

import importlib
import pathlib
from typing import Any

import jax

from alignax import checks, optim, sharding, train
from alignax.role_params import Roles


def find_algorithm(name: str):
  """The module that `config.algorithm` names."""
  if not name:
    raise ValueError('algorithm is empty: set it to alignax.algorithms.sft.')
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name and not name.startswith(error.name):
      raise
    here = pathlib.Path(__file__).parent / 'algorithms'
    known = [f'alignax.algorithms.{p.stem}' for p in here.glob('[a-z]*.py')]
    raise ValueError(
      f'algorithm {name!r} is not a module{checks.nearest(name, known)}.'
    ) from error


def make_optimizer(config, algorithm, kw) -> Any:
  """The optimiser; its schedule counts updates, of which a step has several."""
  per_step = 1
  if hasattr(algorithm, 'updates_per_step'):
    per_step = algorithm.updates_per_step(**kw)
  given = dict(config.optimizer)
  checks.check_keys(given, optim.make_optimizer, 'optimizer')
  if hasattr(algorithm, 'check_schedule'):
    schedule = given.get('schedule', 'cosine')
    algorithm.check_schedule(schedule, config.total_steps, **kw)
  total = config.total_steps * per_step
  return optim.make_optimizer(total_steps=total, **given)


def make_state(config, algorithm, kw, roles: Roles, tx, mesh):
  """The state before the first step, and where each part of it lives."""

  def init(params):
    extra = None
    if hasattr(algorithm, 'init_extra'):
      extra = algorithm.init_extra(params=params, **kw)
    return train.init_state(params, tx, ema=config.ema_decay > 0, extra=extra)

  where = sharding.shard_by_rules(
    mesh, sharding.TRANSFORMER_RULES, jax.eval_shape(init, roles.trained)
  )
  state = jax.jit(init, out_shardings=where, donate_argnums=0)(roles.trained)
  return state, where
