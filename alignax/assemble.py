"""From a config to the parts of a run: models, parameters, data, step.

With `run.py` and `cli/` the only place that reads configs. Everything here
fails before the first compilation, and says what to change.
"""

import dataclasses
import importlib
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignax import checks, data, models, optim, sharding, train
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


class Data(NamedTuple):
  """Training batches, the held-out examples, and what was found in the rows."""

  batches: data.Batches
  heldout: data.Examples | None
  ptx: data.Batches | None
  reports: dict[str, data.Report]


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


def roles_of(algorithm, kw: dict) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """(trained, frozen) roles of an algorithm with these arguments."""
  if hasattr(algorithm, 'roles'):
    return algorithm.roles(**kw)
  return algorithm.TRAINED, algorithm.FROZEN


def load_tokenizer(config):
  """The tokenizer named by the config, or that of the model it starts from."""
  tokenizer = _tokenizer(config)
  teacher = config.role_from.teacher
  if teacher and data.load_tokenizer(teacher).get_vocab() != (
    tokenizer.get_vocab()
  ):
    raise ValueError(
      f'role_from.teacher is {teacher}, whose tokenizer has other tokens than '
      "the student's: their distributions cannot be compared. Take a teacher "
      'of the same family.'
    )
  return tokenizer


def _tokenizer(config):
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


def check_vocabulary(params: Params, vocab_size: int, role: str, source: str):
  """Raises if a model lacks tokens that it will be given."""
  rows = params['embed']['embedding'].shape[0]
  if rows < vocab_size:
    raise ValueError(
      f'The tokenizer has {vocab_size} tokens, the model of role {role!r} '
      f'({source or "fresh"}) only {rows}: they do not belong together.'
    )


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


def check_same_model(config, model, source: str):
  """Raises if `config.model` says other than what is stored."""
  for key, value in config.model.items():
    stored = getattr(model.config, key)
    if key not in ASIDE and value != stored:
      raise ValueError(
        f'model.{key} is {value}, but the model in {source} has {stored}: '
        'leave it out, or start from another model.'
      )


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


def stored_role(source: str, role: str) -> str | None:
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


def make_optimizer(config, algorithm, kw) -> Any:
  """The optimiser; its schedule counts updates, of which a step has several."""
  per_step = 1
  if hasattr(algorithm, 'updates_per_step'):
    per_step = algorithm.updates_per_step(**kw)
  given = dict(config.optimizer)
  checks.check_keys(given, optim.make_optimizer, 'optimizer')
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
    **batch_kw(algorithm, kw, d),
    **hosts(),
  )
  return Data(batches, heldout, ptx, reports)


def batch_kw(algorithm, kw: dict, given) -> dict:
  """What the algorithm itself asks of its batches."""
  wanted = algorithm.batch_kw(**kw) if hasattr(algorithm, 'batch_kw') else {}
  for key in [key for key in wanted if key in given]:
    if given[key] != wanted[key]:
      raise ValueError(
        f'data.{key} is {given[key]}, but with these algorithm_kw '
        f'{algorithm.__name__} needs {wanted[key]}.'
      )
  return {k: v for k, v in wanted.items() if k not in given}


def load_ptx(config, tokenizer) -> tuple[data.Batches, data.Report]:
  """Batches of pretraining text to mix into PPO."""
  d = config.data
  if not d.ptx_path:
    raise ValueError('algorithm_kw.ptx_coef is set, but data.ptx_path is not.')
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
