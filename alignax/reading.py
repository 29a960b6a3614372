"""What a run reads: the tokenizer, and batches of the rows that it names."""

import dataclasses
from typing import NamedTuple

import jax

from alignax import data


class Data(NamedTuple):
  """Training batches, the held-out examples, and what was found in the rows."""

  batches: data.Batches
  heldout: data.Examples | None
  ptx: data.Batches | None
  reports: dict[str, data.Report]


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


def stop_ids(tokenizer) -> tuple[int, ...]:
  """Tokens that end a response: end of text, and end of turn."""
  ids = [tokenizer.eos_token_id]
  for token in ('<|im_end|>', '<|eot_id|>', '<end_of_turn>'):
    ids.append(tokenizer.convert_tokens_to_ids(token))
  unknown = tokenizer.unk_token_id
  return tuple(dict.fromkeys(i for i in ids if i is not None and i != unknown))


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


def hosts() -> dict:
  return dict(
    process_index=jax.process_index(), process_count=jax.process_count()
  )
