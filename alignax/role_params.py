"""The parameters of every role of a run: where they start, and in what form.

A role is trained (policy, value, reward) or frozen (ref, reward, teacher). Each
starts fresh, from a model directory, or from a role of another run; it fails
here, before the first compilation, if what is stored there does not fit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignax import models, sharding, train
from alignax.types import Params

# Roles with a scalar head instead of a language head.
SCALAR_ROLES = ('value', 'reward')
# Which role another starts from, unless the config says.
STARTS_LIKE = {'ref': 'policy', 'value': 'reward', 'reward': 'policy'}
PARAMS = 0  # Stream of the seed for fresh parameters.
# Keys of `config.model` that may differ from those of a stored model.
ASIDE = ('dtype', 'remat', 'max_length', 'vocab_size')


class Roles(NamedTuple):
  """Models and parameters by role; with LoRA, how they become whole."""

  models: dict[str, models.Model]
  trained: Params
  frozen: Params
  join: train.Join = train.separate
  origin: models.Origin | None = None  # Of the adapters, with LoRA.


def roles_of(algorithm, kw: dict) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """(trained, frozen) roles of an algorithm with these arguments."""
  if hasattr(algorithm, 'roles'):
    return algorithm.roles(**kw)
  return algorithm.TRAINED, algorithm.FROZEN


def source_of(config, role: str) -> str:
  """Where a role's parameters come from; '' is fresh ones."""
  named = config.role_from.get(role, '')
  if role == 'teacher' and not named:
    raise ValueError(
      'role_from.teacher is empty, and a model is not its own teacher: set it '
      'to a model of the same tokenizer.'
    )
  if named or role not in STARTS_LIKE:
    return named or config.init_from
  return source_of(config, STARTS_LIKE[role])


def load_roles(config, algorithm, kw, mesh, vocab_size: int) -> Roles:
  """Loads or makes every role's parameters, where the mesh wants them."""
  trained, frozen = roles_of(algorithm, kw)
  found, params = {}, {}
  for role in (*trained, *frozen):
    source = source_of(config, role)
    found[role], params[role] = load_role(
      config,
      role,
      source,
      mesh,
      frozen=role in frozen,
      both_heads=role == 'policy' and kw.get('shared_value', False),
    )
    check_vocabulary(params[role], vocab_size, role, source)
  pick = lambda names: {role: params[role] for role in names}
  return Roles(found, pick(trained), pick(frozen))


def load_role(config, role: str, source: str, mesh, *, frozen: bool = False,
              both_heads: bool = False):  # fmt: skip
  """One role's model and parameters.

  Fresh ones are drawn alike for all roles, as loaded ones of one source are
  alike: a fresh reference is the fresh policy.
  """
  scalar = role in SCALAR_ROLES
  if not source:
    model = models.Model(models.Config(**config.model))
    make = model.init
    given = jax.random.fold_in(jax.random.key(config.seed), PARAMS)
    has_head = False
  else:
    model, given = load_source(config, role, source, mesh)
    # A copy: a trained role is donated, and may not take its source along.
    make = lambda params: jax.tree.map(jnp.copy, params)
    has_head = 'value_head' in given
  if role == 'reward' and frozen and not has_head:
    raise ValueError(
      f'role_from.reward is {source or "empty"!r}, which is no reward model: '
      'it has no value head. Set it to a run of configs/reward.py.'
    )

  def fit(given):
    params = make(given)
    if (scalar and not has_head) or both_heads:
      params = models.add_value_head(params, keep_lm_head=both_heads)
    elif not scalar:
      params = {k: v for k, v in params.items() if k != 'value_head'}
    return lower(params, model.config.dtype) if frozen else params

  where = sharding.shard_by_rules(
    mesh, sharding.TRANSFORMER_RULES, jax.eval_shape(fit, given)
  )
  return model, jax.jit(fit, out_shardings=where)(given)


def load_source(config, role: str, source: str, mesh):
  """What is stored at a source, computing as the config says."""
  model, params = models.load(
    source,
    dtype=config.model.dtype,
    remat=config.model.remat,
    role=stored_role(source, role),
    shardings=lambda tree: sharding.shard_by_rules(
      mesh, sharding.TRANSFORMER_RULES, tree
    ),
  )
  if source == config.init_from:
    check_same_model(config, model, source)
  return model, params


def stored_role(source: str, role: str) -> str | None:
  """Which role of another run a role starts from; None lets `load` choose."""
  from alignax import checkpoint

  path = checkpoint.checkpoints_of(source)
  if not path.exists():
    return None
  stored = checkpoint.roles(path)
  wanted = [role] if role in SCALAR_ROLES else []
  if role == 'value':
    wanted.append('reward')
  return next((name for name in wanted if name in stored), None)


def lower(params: Params, dtype: str) -> Params:
  """Matrices in the dtype in which they are used, for what is only read.

  It changes no result, as the model casts them to that dtype anyway; norms and
  the value head are used in float32, and stay.
  """

  def cast(path, x):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    used_low = name.endswith(('kernel', 'embedding'))
    return x.astype(dtype) if used_low and 'value_head' not in name else x

  return jax.tree_util.tree_map_with_path(cast, params)


def check_vocabulary(params: Params, vocab_size: int, role: str, source: str):
  """Raises if a model lacks tokens that it will be given."""
  rows = params['embed']['embedding'].shape[0]
  if rows < vocab_size:
    raise ValueError(
      f'The tokenizer has {vocab_size} tokens, the model of role {role!r} '
      f'({source or "fresh"}) only {rows}: they do not belong together.'
    )


def check_same_model(config, model, source: str):
  """Raises if `config.model` says other than what is stored."""
  for key, value in config.model.items():
    stored = getattr(model.config, key)
    if key not in ASIDE and value != stored:
      raise ValueError(
        f'model.{key} is {value}, but the model in {source} has {stored}: '
        'leave it out, or start from another model.'
      )
