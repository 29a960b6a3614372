"""From a config to the parts of a run: models, parameters, data, step.

With `run.py` and `cli/` the only place that reads configs. Everything here
fails before the first compilation, and says what to change.
"""

import dataclasses
import difflib
import importlib
import inspect
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignax import data, models, optim, sharding, train
from alignax.types import Params

# Roles with a scalar head instead of a language head.
SCALAR_ROLES = ('value', 'reward')
# Which role another starts from, unless the config says.
STARTS_LIKE = {'ref': 'policy', 'value': 'reward', 'reward': 'policy'}
# Arguments of `make_step` that come from elsewhere than `algorithm_kw`.
GIVEN = ('models', 'tx', 'score_fn', 'update_kw', 'step_kw', 'loss_kw')


class Roles(NamedTuple):
  """Models and parameters by role."""

  models: dict[str, models.Model]
  trained: Params
  frozen: Params


class Data(NamedTuple):
  """Training batches, the held-out examples, and what was found in the rows."""

  batches: data.Batches
  heldout: data.Examples | None
  ptx: data.Batches | None
  reports: dict[str, data.Report]


def find_algorithm(name: str):
  """The module that `config.algorithm` names."""
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name and not name.startswith(error.name):
      raise
    here = pathlib.Path(__file__).parent / 'algorithms'
    known = [f'alignax.algorithms.{p.stem}' for p in here.glob('[a-z]*.py')]
    raise ValueError(
      f'algorithm {name!r} is not a module{nearest(name, known)}.'
    ) from error


def nearest(name: str, known) -> str:
  """'; did you mean ...?', or all that is known."""
  close = difflib.get_close_matches(name, list(known), 1, 0.6)
  if close:
    return f'; did you mean {close[0]!r}?'
  return f'; known are {", ".join(sorted(known))}'


def check_keys(given, function, where: str, but=()):
  """Raises if `function` has no keyword argument for a key that is given."""
  parameters = inspect.signature(function).parameters.values()
  known = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
  for key in given:
    if key not in known and key not in but:
      raise ValueError(f'{where}.{key} is unknown{nearest(key, known)}.')


def algorithm_arguments(algorithm, config) -> dict:
  """`config.algorithm_kw`, checked against what the algorithm takes."""
  kw = dict(config.algorithm_kw)
  parameters = inspect.signature(algorithm.make_step).parameters
  if 'loss_kw' in parameters:  # Goes to a loss, which is known by name.
    loss = algorithm.find_loss(kw.get('loss', 'dpo'))
    more = [*inspect.signature(loss).parameters]
  else:
    more = []
  if more or any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
    more += [*inspect.signature(train.make_update).parameters]
  check_keys(kw, algorithm.make_step, 'algorithm_kw', more)
  return kw


def roles_of(algorithm, kw: dict) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """(trained, frozen) roles of an algorithm with these arguments."""
  if hasattr(algorithm, 'roles'):
    return algorithm.roles(**kw)
  return algorithm.TRAINED, algorithm.FROZEN


def load_tokenizer(config):
  """The tokenizer named by the config, or that of the model it starts from."""
  if config.tokenizer == 'synthetic':
    from alignax.data import synthetic

    return synthetic.make_tokenizer()
  where = config.tokenizer or config.init_from
  if not where:
    raise ValueError(
      'There is no tokenizer: set init_from to a model, or tokenizer to a '
      "directory that has one, or to 'synthetic'."
    )
  return data.load_tokenizer(where)


def source_of(config, role: str) -> str:
  """Where a role's parameters come from; '' is fresh ones."""
  named = config.role_from.get(role, '')
  if named or role not in STARTS_LIKE:
    return named or config.init_from
  return source_of(config, STARTS_LIKE[role])


def load_roles(config, algorithm, kw, mesh, vocab_size: int) -> Roles:
  """Loads or makes every role's parameters, where the mesh wants them."""
  trained, frozen = roles_of(algorithm, kw)
  found, params = {}, {}
  for number, role in enumerate((*trained, *frozen)):
    source = source_of(config, role)
    key = jax.random.fold_in(jax.random.key(config.seed), number)
    found[role], params[role] = load_role(config, role, source, mesh, key)
    if kw.get('shared_value') and role == 'policy':
      head = models.add_value_head(params[role])['value_head']
      params[role] = params[role] | {'value_head': _place(mesh, head)}
    rows = params[role]['embed']['embedding'].shape[0]
    if rows < vocab_size:
      raise ValueError(
        f'The tokenizer has {vocab_size} tokens, the model of role {role!r} '
        f'({source or "fresh"}) only {rows}: they do not belong together.'
      )
  pick = lambda names: {role: params[role] for role in names}
  return Roles(found, pick(trained), pick(frozen))


def load_role(config, role: str, source: str, mesh, key):
  """One role's model and parameters."""
  overrides = {k: v for k, v in config.model.items() if k in ('dtype', 'remat')}
  scalar = role in SCALAR_ROLES
  place = lambda tree: sharding.shard_by_rules(
    mesh, sharding.TRANSFORMER_RULES, tree
  )
  if not source:
    model = models.Model(models.Config(**config.model))
    init = lambda key: model.init(key, value_head=scalar)
    where = place(jax.eval_shape(init, key))
    return model, jax.jit(init, out_shardings=where)(key)
  model, params = models.load(
    source, **overrides, role=_stored_role(source, role), shardings=place
  )
  if scalar and 'value_head' not in params:
    params = models.add_value_head(params)
  if not scalar:
    params = {k: v for k, v in params.items() if k != 'value_head'}
  # A copy: a trained role is donated, and may not take its source along.
  params = jax.jit(
    lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=place(params)
  )(params)
  return model, params


def _stored_role(source: str, role: str) -> str | None:
  """Which role of another run a role starts from; None lets `load` choose."""
  path = pathlib.Path(source) / 'checkpoints'
  if not path.exists():
    return None
  from alignax import checkpoint

  stored = checkpoint.roles(path)
  wanted = [role] if role in SCALAR_ROLES else []
  if role == 'value':
    wanted.append('reward')
  return next((name for name in wanted if name in stored), None)


def make_state(config, algorithm, kw, roles: Roles, tx, mesh):
  """The state before the first step, and where each part of it lives."""
  extra = algorithm.init_extra(**kw) if hasattr(algorithm, 'init_extra') else {}
  init = lambda params: train.init_state(
    params, tx, ema=config.ema_decay > 0, extra=extra
  )
  where = sharding.shard_by_rules(
    mesh, sharding.TRANSFORMER_RULES, jax.eval_shape(init, roles.trained)
  )
  state = jax.jit(init, out_shardings=where, donate_argnums=0)(roles.trained)
  return state, where


def make_optimizer(config, algorithm, kw) -> Any:
  """The optimiser; its schedule counts updates, of which a step has several."""
  per_step = 1
  if hasattr(algorithm, 'updates_per_step'):
    per_step = algorithm.updates_per_step(**kw)
  given = dict(config.optimizer)
  known = {
    p.name
    for f in (optim.make_optimizer, optim.make_schedule)
    for p in inspect.signature(f).parameters.values()
  }
  for key in given:
    if key not in known:
      raise ValueError(f'optimizer.{key} is unknown{nearest(key, known)}.')
  total = config.total_steps * per_step
  return optim.make_optimizer(total_steps=total, **given)


def load_data(config, algorithm, kw, tokenizer) -> Data:
  """Reads, tokenises and batches; what was wrong with rows is reported."""
  d = config.data
  kind = d.kind or algorithm.DATA
  if not d.path:
    raise ValueError('data.path is empty: set it to a file, or a data set.')
  rows = data.load_rows(d.path, format=d.format or None, split=d.split or None)
  heldout_rows = None
  if d.heldout_path:
    heldout_rows = data.load_rows(d.heldout_path, format=d.format or None)
  elif d.heldout:
    rows, heldout_rows = split_rows(rows, d.heldout)
  prepare_kw = dict(
    kind=kind,
    length=d.length,
    template=d.template,
    turns=d.turns,
    on_bad_row=d.on_bad_row,
    drop_duplicates=d.drop_duplicates,
  )
  examples, report = data.prepare(rows, tokenizer, **prepare_kw)
  reports, heldout = {'training': report}, None
  if heldout_rows is not None:
    heldout, reports['held out'] = data.prepare(
      heldout_rows, tokenizer, **prepare_kw
    )
  ptx = None
  if kw.get('ptx_coef'):
    ptx, reports['pretraining'] = load_ptx(config, tokenizer)
  batches = data.Batches(
    examples,
    kind=kind,
    length=d.length,
    batch_size=d.batch_size,
    seed=config.seed,
    packing=d.packing,
    **hosts(),
  )
  return Data(batches, heldout, ptx, reports)


def load_ptx(config, tokenizer) -> tuple[data.Batches, data.Report]:
  """Batches of pretraining text to mix into PPO."""
  d = config.data
  if not d.ptx_path:
    raise ValueError('algorithm_kw.ptx_coef is set, but data.ptx_path is empty.')
  rows = data.load_rows(d.ptx_path)
  kw = dict(kind='text', length=d.ptx_length or d.length)
  examples, report = data.prepare(rows, tokenizer, **kw)
  size = d.ptx_batch_size or d.batch_size
  batches = data.Batches(
    examples,
    batch_size=size,
    seed=config.seed + 1,
    packing=True,
    **kw,
    **hosts(),
  )
  return batches, report


def hosts() -> dict:
  return dict(
    process_index=jax.process_index(), process_count=jax.process_count()
  )


def split_rows(rows, heldout: int):
  """The last rows of a source are held out, the same on every run."""
  if heldout >= len(rows):
    raise ValueError(
      f'data.heldout is {heldout}, but there are only {len(rows)} rows.'
    )
  parts = []
  for cut in (slice(None, -heldout), slice(-heldout, None)):
    sources = [
      dataclasses.replace(s, rows=s.rows[cut], numbers=s.numbers[cut])
      for s in rows.sources
    ]
    parts.append(data.Rows(sources))
  return parts


def stop_ids(tokenizer) -> tuple[int, ...]:
  """Tokens that end a response: end of text, and end of turn."""
  ids = [tokenizer.eos_token_id]
  for token in ('<|im_end|>', '<|eot_id|>', '<end_of_turn>'):
    ids.append(tokenizer.convert_tokens_to_ids(token))
  unknown = tokenizer.unk_token_id
  return tuple(dict.fromkeys(i for i in ids if i is not None and i != unknown))
