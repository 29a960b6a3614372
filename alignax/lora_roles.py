"""Roles on one shared base (LoRA): where each starts, and how they are joined.

`frozen['base']` is the only copy of the base's weights. The trained roles hold
adapters, and a value head where they give scores; so do frozen roles that were
trained on the same base, and a frozen role without anything is the base itself.
A frozen role from elsewhere, such as a reward model, stays a model of its own.
"""

import dataclasses
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignax import lora, models, quantize, role_params, sharding
from alignax.models import adapters as stored
from alignax.models import convert
from alignax.models.io import locate
from alignax.types import Params


class Shared(NamedTuple):
  """The base, and what stands on it."""

  settings: lora.Lora
  source: str
  model: models.Model
  params: Params  # As they are kept: quantised, perhaps.
  head: Params | None  # Of a base that is a reward model.


def load_roles(
  config, algorithm, kw, mesh, vocab_size: int, workdir
) -> role_params.Roles:
  """Every role's parameters, as `role_params.load_roles`; shared with LoRA."""
  if not config.lora.rank:
    return role_params.load_roles(config, algorithm, kw, mesh, vocab_size)
  trained, frozen = role_params.roles_of(algorithm, kw)
  settings = lora.Lora(**config.lora)
  source = find_base(config, role_params.source_of(config, trained[0]), workdir)
  base = load_base(config, settings, source, mesh)
  role_params.check_vocabulary(base.params, vocab_size, lora.BASE, source)
  found = dict.fromkeys((*trained, *frozen), base.model)
  params = {}
  for i, role in enumerate(trained):
    params[role] = load_trained(
      config,
      base,
      role,
      mesh,
      key=jax.random.fold_in(jax.random.key(config.seed), ADAPTERS + i),
      both_heads=role == 'policy' and kw.get('shared_value', False),
      main=i == 0,
    )
  frozen_params = {lora.BASE: base.params}
  for role in frozen:
    found[role], tree = load_frozen(config, base, role, mesh)
    if lora.is_whole(tree):
      named = role_params.source_of(config, role)
      role_params.check_vocabulary(tree, vocab_size, role, named)
    frozen_params[role] = tree
  return role_params.Roles(
    found,
    params,
    frozen_params,
    lora.make_join(settings),
    models.Origin(settings, source),
  )


def join_kw(roles: role_params.Roles) -> dict:
  """What algorithms are told of shared parameters; nothing if none are."""
  return {} if roles.origin is None else {'join': roles.join}


ADAPTERS = 100  # Streams of the seed for fresh adapters, from here on.


def find_base(config, start: str, workdir) -> str:
  """Where the base is, on which the first trained role starts.

  A fresh base is stored in the run's directory: its adapters are of no use
  without it.
  """
  if start:
    origin = stored.describe(locate(start))
    return start if origin is None else origin.base
  path = pathlib.Path(workdir) / 'base'
  if path.exists():
    return str(path)
  if jax.process_count() > 1:
    raise ValueError(
      'init_from is empty, and several hosts cannot store a fresh base for '
      'lora: make one first, with alignax train on one host.'
    )
  model = models.Model(models.Config(**config.model))
  key = jax.random.fold_in(jax.random.key(config.seed), role_params.PARAMS)
  models.save(path, model, model.init(key))
  return str(path)


def load_base(config, settings: lora.Lora, source: str, mesh) -> Shared:
  """The base as it is kept, where the mesh wants it."""
  place = lambda tree: sharding.shard_by_rules(
    mesh, sharding.TRANSFORMER_RULES, tree
  )
  as_is = settings.base in ('int8', 'nf4')
  model, params = models.load(
    source,
    dtype=config.model.dtype,
    remat=config.model.remat,
    param_dtype=None if as_is else settings.base,
    shardings=place,
  )
  role_params.check_same_model(config, model, source)
  # Now, before there is anything to wait for.
  lora.find_targets(convert.abstract_params(model.config), settings)
  head = params.pop('value_head', None)

  def keep(params):
    if settings.base in quantize.KINDS:
      return quantize.quantise_params(params, settings.base)
    return role_params.lower(params, model.config.dtype)

  where = place(jax.eval_shape(keep, params))
  kept = jax.jit(keep, out_shardings=where, donate_argnums=0)(params)
  return Shared(settings, source, model, kept, head)


def load_trained(
  config, base: Shared, role: str, mesh, *, key, both_heads, main
) -> Params:
  """Adapters to go on with, or fresh ones; and a head where scores come from.

  A value function starts from the reward model where that is an adapter of the
  same base, else from the base.
  """
  source = role_params.source_of(config, role)
  scalar = role in role_params.SCALAR_ROLES
  origin = stored.describe(locate(source)) if source else None
  if origin is not None and same(origin.base, base.source):
    tree = load_stored(base, source, role)
  elif not main and config.role_from.get(role):
    raise ValueError(
      f'role_from.{role} is {source}, which is no adapter of the base '
      f'{base.source}: with lora.rank set, trained roles share one base.'
    )
  else:
    shapes = convert.abstract_params(base.model.config)
    init = lambda params, key: lora.init_adapters(
      params, shapes, base.settings, key
    )
    tree = jax.jit(init)(base.params, key)
    if main and base.head is not None:
      tree['value_head'] = base.head
  if scalar or both_heads:
    width = base.model.config.width
    head = {'kernel': jnp.zeros((width,)), 'bias': jnp.zeros(())}
    tree = {'value_head': head} | tree
  tree = without_unused(tree, scalar, both_heads)
  if not tree:
    raise ValueError(
      f'lora.targets is {base.settings.targets!r}, which leaves role {role!r} '
      'nothing to learn: that is for reward models.'
    )
  return placed(mesh, tree)


def load_stored(base: Shared, source: str, role: str) -> Params:
  """Adapters of a run, to be trained on; only with settings of the config."""
  _, origin, tree = models.load_adapters(
    source, role=role_params.stored_role(source, role)
  )
  have, want = map(dataclasses.asdict, (origin.settings, base.settings))
  # How the base is kept may change; which rule found them does not matter.
  differ = [
    k for k in ('rank', 'alpha', 'dora', 'rslora') if have[k] != want[k]
  ]
  if differ:
    shown = ', '.join(f'lora.{k}={have[k]!r}' for k in differ)
    raise ValueError(
      f'{source} holds adapters with {shown}, which is not what the config '
      'has. Set the same; or merge them into a base of their own first, with '
      'alignax export --merge.'
    )
  where = f'{source}, by lora.targets of the config,'
  stored.check(base.model.config, base.settings, tree, where)
  return tree


def load_frozen(config, base: Shared, role: str, mesh):
  """The model and parameters of a role that is only read."""
  source = role_params.source_of(config, role)
  scalar = role in role_params.SCALAR_ROLES
  origin = stored.describe(locate(source)) if source else None
  if not scalar and (not source or same(source, base.source)):
    return base.model, {}
  if origin is None or not same(origin.base, base.source):
    return role_params.load_role(config, role, source, mesh, frozen=True)
  _, origin, tree = models.load_adapters(
    source, role=role_params.stored_role(source, role)
  )
  if scalar and 'value_head' not in tree:
    raise ValueError(
      f'role_from.{role} is {source}, whose adapters are of no reward model: '
      'they have no value head. Set it to a run of configs/reward.py.'
    )
  # On the mesh of the base before it is computed with.
  tree = placed(mesh, without_unused(tree, scalar, False))
  settle = lambda params, tree: lora.settle(params, tree, origin.settings.scale)
  return base.model, placed(mesh, jax.jit(settle)(base.params, tree))


def without_unused(tree: Params, scalar: bool, both_heads: bool) -> Params:
  """Leaves out the head that a role does not have, and its adapter."""
  dropped = []
  if scalar:
    dropped.append('lm_head')
  elif not both_heads:
    dropped.append('value_head')
  return {k: v for k, v in tree.items() if k not in dropped}


def placed(mesh, tree: Params) -> Params:
  """Arrays where the rules put them."""
  where = sharding.shard_by_rules(mesh, sharding.TRANSFORMER_RULES, tree)
  return jax.tree.map(
    lambda x, s: jax.device_put(jnp.asarray(x, jnp.float32), s), tree, where
  )


def same(one: str, other: str) -> bool:
  """Whether two names are of one stored model."""
  resolve = lambda x: str(pathlib.Path(x).resolve())
  return one == other or resolve(one) == resolve(other)
