"""What a run reads: the tokenizer, and batches of the rows that it names."""

import dataclasses
import pathlib
import tempfile
from typing import NamedTuple

import jax

from alignax import data, models
from alignax.models import io


class Data(NamedTuple):
  """Training batches, the held-out examples, and what was found in the rows."""

  batches: data.Batches
  heldout: data.Examples | None
  ptx: data.Batches | None
  reports: dict[str, data.Report]


def load_tokenizer(config):
  """The tokenizer named by the config, or that of the model it starts from.

  It has the config's chat template, if that names one.
  """
  tokenizer = _tokenizer(config)
  if config.data.template:
    data.adopt_template(tokenizer, config.data.template)
  teacher = config.role_from.teacher
  if teacher and tokenizer_of(teacher).get_vocab() != tokenizer.get_vocab():
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
  if config.tokenizer:
    return data.load_tokenizer(config.tokenizer)
  if not config.init_from:
    raise ValueError(
      'There is no tokenizer: set init_from to a model, or tokenizer to a '
      "directory that has one, or to 'synthetic'."
    )
  return tokenizer_of(config.init_from)


def tokenizer_of(where: str):
  """The tokenizer of a model, wherever the model is kept.

  In a GGUF file it is part of the file, and beside adapters it may be missing:
  then it is that of their base.
  """
  path = models.tokenizer_source(where)
  if path.is_dir():
    return data.load_tokenizer(path)
  with tempfile.TemporaryDirectory() as folder:
    io.copy_tokenizer(path, pathlib.Path(folder))
    return data.load_tokenizer(folder)


def stop_ids(tokenizer) -> tuple[int, ...]:
  """Tokens that end a response: end of text, and end of turn."""
  turns = ('<|im_end|>', '<|eot_id|>', '<end_of_turn>', end_of_turn(tokenizer))
  found = map(tokenizer.convert_tokens_to_ids, filter(None, turns))
  # A token that is not there is looked up as the unknown one, which may be the
  # end of text at the same time, as in GPT-2.
  found = [i for i in found if i != tokenizer.unk_token_id]
  ids = dict.fromkeys([tokenizer.eos_token_id, *found])
  return tuple(i for i in ids if i is not None)


def end_of_turn(tokenizer) -> str | None:
  """The token with which its chat template ends what the assistant says."""
  if not tokenizer.chat_template:
    return None
  try:
    return data.stop_token(data.make_template(tokenizer))
  except (data.RowError, data.TemplateRefused):
    return None  # Not for conversations; who trains on some is told so.


def load_data(config, algorithm, kw, tokenizer) -> Data:
  """Reads, tokenises and batches; what was wrong with rows is reported."""
  d = config.data
  kind = d.kind or algorithm.DATA
  rows = read_rows(d, split=d.split or None)
  heldout_rows = None
  if d.heldout_path:
    heldout_rows = read_rows(d, d.heldout_path)
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
    data.report_trained_on(heldout, examples, reports['held out'])
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


def read_rows(d, path: str = '', **kw) -> data.Rows:
  """Rows of a path, or of all that the config names, a mixture perhaps."""
  mixture = d.get('mixture') or {}
  if not (path or d.path or mixture):
    raise ValueError('data.path is empty: set it to a file, or a data set.')
  # In the order of names, which is the same in a config that was stored.
  sources = [mixture[name].to_dict() for name in sorted(mixture)]
  kw |= dict(format=d.format or None, columns=d.get('columns'))
  return data.load_rows(path or d.path or sources, **kw)


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
  rows = data.load_rows(d.ptx_path)
  kw = dict(kind='text', length=d.ptx_length or d.length)
  examples, report = data.prepare(
    rows, tokenizer, on_bad_row=d.on_bad_row, **kw
  )
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


def split_rows(rows, heldout: int):
  """The last rows of every source are held out, the same on every run.

  A source gives in proportion to its rows, whatever its weight, so that each
  stays in training. Held out, they have no weights: every row counts once.
  """
  if heldout >= len(rows):
    raise ValueError(
      f'data.heldout is {heldout}, but there are only {len(rows)} rows.'
    )
  train, rest = [], []
  sizes = [len(source.rows) for source in rows.sources]
  for source, share in zip(rows.sources, shares(heldout, sizes)):
    cut = len(source.rows) - share
    train.append(_cut(source, slice(None, cut)))
    held = _cut(source, slice(cut, None))
    rest.append(dataclasses.replace(held, weight=None))
  return data.Rows(train), data.Rows(rest)


def shares(number: int, sizes: list[int]) -> list[int]:
  """Divides a number in proportion to sizes, the largest remainders up."""
  exact = [number * size / sum(sizes) for size in sizes]
  found = [int(share) for share in exact]
  remainder = lambda i: found[i] - exact[i]
  for i in sorted(range(len(sizes)), key=remainder)[: number - sum(found)]:
    found[i] += 1
  return found


def _cut(source, part: slice):
  rows, numbers = source.rows[part], source.numbers[part]
  return dataclasses.replace(source, rows=rows, numbers=numbers)


def hosts() -> dict:
  return dict(
    process_index=jax.process_index(), process_count=jax.process_count()
  )
