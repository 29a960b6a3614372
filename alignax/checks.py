"""Checks of a config, made before anything is loaded or compiled.

Whatever is wrong is named by its key, with the nearest key that there is.
"""

import dataclasses
import difflib
import functools
import inspect
import math
import re
import typing

import jax

from alignax import lora, models, sharding, train

# Every key of a config, as in `configs/common.py`; those of `optimizer`,
# `mesh`, `model` and `algorithm_kw` are arguments of functions instead.
KEYS = {
  '': (
    'seed', 'total_steps', 'algorithm', 'algorithm_kw', 'init_from',
    'role_from', 'tokenizer', 'model', 'data', 'optimizer', 'ema_decay',
    'max_skipped', 'mesh', 'checkpoint', 'log', 'evals', 'monitor',
    'rewards',
    'lora',
  ),
  'role_from': ('ref', 'value', 'reward', 'teacher'),
  'data': (
    'path', 'format', 'split', 'kind', 'length', 'batch_size', 'packing',
    'template', 'turns', 'on_bad_row', 'drop_duplicates', 'heldout',
    'heldout_path', 'ptx_path', 'ptx_length', 'ptx_batch_size',
    'precompute_ref',
  ),
  'checkpoint': ('every', 'keep', 'keep_best', 'best_metric'),
  'log': ('every', 'tensorboard'),
  'evals': ('every', 'samples', 'sampling', 'scorer', 'probes'),
  'evals.probes': (
    'every', 'prompts', 'per_prompt', 'text', 'text_length', 'sycophancy',
  ),
  'monitor': ('proxy', 'judge', 'window', 'alpha', 'patience', 'stop'),
  'mesh': ('data', 'fsdp', 'tensor'),
  'lora': ('rank', 'alpha', 'targets', 'dora', 'rslora', 'base'),
}  # fmt: skip
# Keys that are there only where they are set: all other configs stay as they
# are, down to the hash by which sweeps know them.
OPTIONAL = {'data': ('mixture', 'columns')}
# Of one source in `data.mixture`; arguments of `data.load_rows`.
SOURCE = ('path', 'weight', 'format', 'split', 'columns')
# Arguments that come from elsewhere than `algorithm_kw` and `optimizer`.
GIVEN = (
  'score_fn', 'ema_decay', 'state_sharding', 'axis_name', 'total_steps',
  'join', 'exists',
)  # fmt: skip


def nearest(name: str, known) -> str:
  """'; did you mean ...?', or all that is known."""
  close = difflib.get_close_matches(name, list(known), 1, 0.6)
  if close:
    return f'; did you mean {close[0]!r}?'
  return f'; known are {", ".join(sorted(known))}'


def check_workdir(workdir):
  """Raises for an address: a path of that name would be made right here."""
  # A `Path` of 'gs://bucket/run' is 'gs:/bucket/run'.
  if re.match(r'[A-Za-z][A-Za-z0-9+.-]+:/', str(workdir)):
    raise ValueError(
      f'workdir is {workdir}, an address; runs are written to directories: '
      'mount the bucket, or copy the run there when it is done.'
    )


def check_known(given, known, where: str):
  """Raises for a key that is none of those that there are."""
  for key in given:
    if key not in known:
      raise ValueError(f'{where}{key} is unknown{nearest(key, known)}.')


def check_config(config):
  """Raises for keys that nothing reads, and for those that are missing."""
  for section, known in KEYS.items():
    path = section.split('.') if section else ()
    given = functools.reduce(lambda part, key: part[key], path, config)
    where = f'{section}.' if section else ''
    check_known(given, (*known, *OPTIONAL.get(section, ())), where)
    missing = [f'{where}{key}' for key in known if key not in given]
    if missing:
      raise ValueError(
        f'The config lacks {", ".join(missing)}; start it from '
        'configs.common.base(), which has every key.'
      )
  check_mixture(config.data)
  check_evals(config)


def check_mixture(d):
  """Raises for sources of a mixture that cannot be read."""
  mixture = d.get('mixture') or {}
  if mixture and d.path:
    raise ValueError(
      f'data.path is {d.path!r}, and there is a data.mixture: leave one of '
      "them empty, as data.path=''."
    )
  for name, source in mixture.items():
    where = f'data.mixture.{name}'
    if not hasattr(source, 'keys') or not source.get('path'):
      raise ValueError(
        f'{where} is {source!r}; give it at least a path, and a weight: '
        "dict(path='chats.jsonl', weight=3.0)."
      )
    check_known(source, SOURCE, f'{where}.')


def check_evals(config):
  """Raises for evaluations of nothing, and for a best that is not kept."""
  d, evals, kept = config.data, config.evals, config.checkpoint
  if evals.every and not (d.heldout or d.heldout_path or evals.probes.every):
    raise ValueError(
      f'evals.every is {evals.every}, but there is nothing to evaluate on: set '
      'data.heldout or data.heldout_path, or evals.probes.every.'
    )
  # With monitor.stop, which keeps the best by its judge, they are compared.
  if kept.best_metric and not (kept.keep_best or config.monitor.stop):
    raise ValueError(
      f'checkpoint.best_metric is {kept.best_metric!r}, but '
      'checkpoint.keep_best is 0, which keeps none for being the best: set it, '
      'to 1 say.'
    )
  # With it again, only what is the best so far is rated, whenever it is saved.
  if kept.keep_best > 0 and not config.monitor.stop:
    check_rated(config)


def check_rated(config):
  """Raises if checkpoints are saved that have nothing to be compared by."""
  kept, evals = config.checkpoint, config.evals
  if not kept.best_metric:
    raise ValueError(
      f'checkpoint.keep_best is {kept.keep_best}, but checkpoint.best_metric '
      "is empty: set it to an evaluated metric, '-heldout/loss' say."
    )
  of_probes = kept.best_metric.lstrip('-').startswith('probes/')
  key = 'evals.probes.every' if of_probes else 'evals.every'
  every = evals.probes.every if of_probes else evals.every
  if kept.every and (not every or kept.every % every):
    raise ValueError(
      f'checkpoint.keep_best is {kept.keep_best}, but at some of the steps '
      f'that are saved, every {kept.every}, {kept.best_metric!r} is not '
      f'measured: set {key}, which is {every}, to a divisor of '
      'checkpoint.every, to the same say.'
    )


def check_kind(config, algorithm):
  """Raises for data of a kind that the algorithm does not read."""
  d, name = config.data, algorithm.__name__
  kinds = (algorithm.DATA, *getattr(algorithm, 'OTHER_KINDS', ()))
  kind = d.kind or algorithm.DATA
  if kind not in kinds:
    raise ValueError(
      f'data.kind is {kind!r}, but {name} reads {" or ".join(kinds)}.'
    )
  if d.turns != 'all' and kind != 'text':
    raise ValueError(
      f'data.turns is {d.turns!r}, a choice for data of kind text only; {name} '
      f"reads {kind}, so leave it at 'all'."
    )
  if d.packing and kind == 'prompts':
    raise ValueError(
      f'data.packing is True, but {name} reads prompts, each of which needs a '
      'row to go on in: set it to False.'
    )


def check_keys(given, function, where: str, but=()):
  """Raises if `function` has no keyword argument for a key that is given."""
  known = [k for k in (*keywords(function), *but) if k not in GIVEN]
  check_known(given, known, f'{where}.')


def keywords(function) -> list[str]:
  """Names of the keyword-only arguments of a function."""
  parameters = inspect.signature(function).parameters.values()
  return [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]


def algorithm_arguments(algorithm, config) -> dict:
  """`config.algorithm_kw`, checked against what the algorithm takes."""
  kw = dict(config.algorithm_kw)
  parameters = inspect.signature(algorithm.make_step).parameters
  more = []
  if 'loss_kw' in parameters:  # Goes to a loss, which is known by name.
    loss = kw.get('loss', parameters['loss'].default)
    more += keywords(algorithm.find_loss(loss))
  if any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
    more += keywords(train.make_update)
  check_keys(kw, algorithm.make_step, 'algorithm_kw', more)
  return kw


def check_model(config):
  """Raises for keys of `config.model` that no model has, and for bad values."""
  fields = {f.name: f for f in dataclasses.fields(models.Config)}
  check_known(config.model, fields, 'model.')
  choices = dict(
    remat=typing.get_args(fields['remat'].type),
    dtype=('float32', 'bfloat16', 'float16'),
  )
  for key, known in choices.items():
    if config.model[key] not in known:
      raise ValueError(
        f'model.{key} is {config.model[key]!r}; it is one of '
        f'{", ".join(known)}.'
      )
  needed = {k for k, f in fields.items() if f.default is dataclasses.MISSING}
  missing = sorted(needed - {'vocab_size'} - set(config.model))
  if missing and not config.init_from:
    raise ValueError(
      'init_from is empty, so the model is a fresh one, and needs '
      f'{", ".join(f"model.{key}" for key in missing)}.'
    )


def check_lora(config, algorithm):
  """Raises for adapters that cannot be; the targets need the model's paths."""
  given = config.lora
  if not given.rank:
    ask = [name for name in ('dora', 'rslora') if given[name]]
    ask += ['base'] if given.base != 'float32' else []
    if ask:
      raise ValueError(
        f'lora.{ask[0]} is {given[ask[0]]}, but lora.rank is 0, which is no '
        'adapters at all: set lora.rank, to 16 say.'
      )
    return
  lora.Lora(**given)
  parameters = inspect.signature(algorithm.make_step).parameters
  takes_rest = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
  if 'join' not in parameters and not takes_rest:
    raise ValueError(
      f'lora.rank is {given.rank}, but {algorithm.__name__}.make_step takes no '
      'join, by which roles share a base; see train.make_update.'
    )


def check_batch(config, algorithm, kw, mesh):
  """Raises if batches do not divide over devices and parts of a step."""
  size = config.data.batch_size
  rows = math.prod(mesh.shape[axis] for axis in sharding.BATCH_AXES)
  if size % rows:
    raise ValueError(
      f'data.batch_size is {size}, which does not divide over data * fsdp = '
      f'{rows} devices: change it, or the mesh.'
    )
  learned = size
  if hasattr(algorithm, 'learned_rows'):
    learned = algorithm.learned_rows(size, **kw)
  parts = kw.get('minibatches', 1) * kw.get('microbatches', 1)
  if learned % parts:
    raise ValueError(
      f'A step learns from {learned} rows (data.batch_size is {size}), which '
      f'do not divide into {parts} minibatches and microbatches of '
      'algorithm_kw.'
    )
  if size % (rows * kw.get('rounds', 1)):
    raise ValueError(
      f'data.batch_size is {size}, which does not divide into '
      f'algorithm_kw.rounds = {kw["rounds"]} rounds over {rows} devices.'
    )
  check_ptx(config, algorithm, kw, rows)


def check_ptx(config, algorithm, kw, rows: int):
  """Raises if pretraining text is not mixed in, or does not divide.

  Args:
    config: of the run.
    algorithm: its module.
    kw: arguments of the algorithm.
    rows: over how many devices a batch is divided.
  """
  d, coef = config.data, kw.get('ptx_coef')
  if d.ptx_path and not coef:
    takes = 'ptx_coef' in keywords(algorithm.make_step)
    why = 'algorithm_kw.ptx_coef is 0, which mixes none of it in'
    if not takes:
      why = f'{algorithm.__name__} mixes no text in: it takes no ptx_coef'
    raise ValueError(f'data.ptx_path is {d.ptx_path!r}, but {why}.')
  if not coef:
    return
  if not d.ptx_path:
    raise ValueError('algorithm_kw.ptx_coef is set, but data.ptx_path is not.')
  size = d.ptx_batch_size or d.batch_size
  parts = kw.get('minibatches', 1) * kw.get('microbatches', 1)
  for number, what in (
    (rows, 'data * fsdp devices'),
    (jax.process_count(), 'hosts'),
    (parts, 'minibatches and microbatches of algorithm_kw'),
  ):
    if size % number:
      raise ValueError(
        f'data.ptx_batch_size is {d.ptx_batch_size}, so {size} rows of text '
        f'are mixed into a step, which do not divide into {number} {what}.'
      )
