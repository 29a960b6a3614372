"""Where rows come from: files, the hub, the synthetic world, mixtures."""

import pathlib
import re
import urllib.parse
from collections.abc import Mapping, Sequence

from alignax.data import formats
from alignax.data.files import SUFFIXES, TABLES, read_file, structured
from alignax.data.rows import Rows, Source

_WEIGHED = re.compile(r'(?P<path>.+):(?P<weight>\d+(\.\d+)?)')
_SLICE = re.compile(
  r'^(?P<name>[\w.-]*)(\[(?P<a>(-?\d+%?)?):(?P<b>(-?\d+%?)?)\])?$'
)


def load_rows(
  path: str | Sequence[Mapping],
  *,
  format: str | None = None,
  split: str | None = None,
  columns: Mapping[str, str] | None = None,
) -> Rows:
  """Reads the rows of a file, of a hub data set, or of a weighted mixture.

  Args:
    path: a jsonl, json, parquet, csv, tsv or txt file (also `.gz` of the text
      ones); `synthetic:NAME?n=1000&seed=0` for a procedural world; otherwise
      the name of a data set on the hub or a folder `datasets` can load. Behind
      it may stand `?split=test`, instead of the argument, and for a data set of
      several configurations `?name=main`, or `?name=main&split=test`. A list
      of dicts of these arguments, each with a `weight`, is a mixture: batches
      then draw from every source in proportion to its weight. The other
      arguments hold for those that do not say otherwise. `'a.jsonl:3,b.csv:1'`
      is a mixture of two paths, with weights 3 and 1.
    format: one of `formats.FORMATS`; detected from the keys when it is None
      and they allow one reading only.
    split: which rows, as `datasets` writes it: `'train'`, `'train[:90%]'`. A
      file has one split, so `'[:-100]'` is enough there.
    columns: new name of a field → its name in the file, for files in no
      standard format: `dict(prompt='question', completion='answer')`.

  Returns:
    The rows. They know their file and number for error messages.

  Raises:
    FileNotFoundError, ValueError: with what was looked for and what to do.
  """
  given = dict(format=format, split=split, columns=columns)
  if not isinstance(path, str | pathlib.Path):
    return _mixture(path, given)
  if parts := weighed_parts(str(path)):
    return _mixture(parts, given)
  return Rows([_load(str(path), **given)])


def _load(path: str, format, split, columns, weight=None) -> Source:
  """The rows of one path."""
  path, config, split = split_query(path, split)
  name, rows, numbers = _read(path, config, split)
  if not rows:
    raise ValueError(
      f'{path}: no rows'
      + (f' in split {split!r}' if split else '')
      + '; give a file or a split that holds at least one'
    )
  if columns:
    rows = [_rename(row, columns) for row in rows]
  if suffix_of(path) in TABLES:
    rows = [structured(row) for row in rows]
  if format is None:
    first = next((row for row in rows if isinstance(row, dict)), None)
    format = formats.detect(first, name) if first is not None else None
  formats.check_name(format)
  return Source(name, rows, numbers, format, weight)


def weighed_parts(text: str) -> list[dict]:
  """Sources of 'a.jsonl:3,b.csv:1'; none for a path that is not of the kind."""
  parts = text.split(',')
  found = [_WEIGHED.fullmatch(part) for part in parts]
  if len(parts) < 2 or not any(found) or pathlib.Path(text).exists():
    return []
  return [
    dict(path=m['path'], weight=float(m['weight'])) if m else dict(path=part)
    for part, m in zip(parts, found)
  ]


def _mixture(parts: Sequence[Mapping], given: Mapping) -> Rows:
  sources = []
  for part in parts:
    part = {**given, **part}
    weight = part.get('weight')
    if weight is not None and not weight > 0:
      raise ValueError(
        f'mixture: weight {weight} of {part.get("path")!r}; expected a '
        'number above 0 (leave out a source that should not be drawn)'
      )
    sources.append(_load(str(part.pop('path')), **part))
  if not sources:
    raise ValueError('mixture: no sources; expected at least one')
  if len({source.weight is None for source in sources}) > 1:
    raise ValueError(
      'mixture: some sources have a weight and some have none; '
      'give one to each, or to none to join them as they are'
    )
  return Rows(sources)


def _rename(row, columns: Mapping[str, str]):
  if not isinstance(row, dict):
    return row
  renamed = {old: new for new, old in columns.items()}
  return {renamed.get(key, key): value for key, value in row.items()}


def split_query(path: str, split: str | None):
  """A path alone, and the configuration and split that it asks for."""
  where, mark, query = path.partition('?')
  whole = path.startswith('synthetic:') or pathlib.Path(path).exists()
  if whole or not mark:
    return path, None, split
  # By hand: '+' and '%' mean something in a split.
  asked = dict(part.partition('=')[::2] for part in query.split('&'))
  if unknown := asked.keys() - {'name', 'split'}:
    raise ValueError(
      f'{path}: no such file, and {min(unknown)!r} cannot be asked of a path; '
      'expected name=, split= or both, as in NAME?name=main&split=test'
    )
  return where, asked.get('name'), asked.get('split', split)


def suffix_of(path: str) -> str:
  """What kind of file it is by its name; '' if it has no suffix."""
  suffixes = [s for s in pathlib.Path(path).suffixes if s != '.gz']
  return suffixes[-1] if suffixes else ''


def _read(path: str, config: str | None, split: str | None):
  """Name, rows and row numbers of one path."""
  if path.startswith('synthetic:'):
    rows, split = _synthetic(path, split)
    return (path.split('?')[0], *_cut(rows, range(1, len(rows) + 1), split))
  file, suffix = pathlib.Path(path), suffix_of(path)
  if file.is_file():
    if config:
      raise ValueError(
        f'{path}?name={config}: a file has no configurations; only a data set '
        'on the hub has, or a folder'
      )
    if suffix not in SUFFIXES:
      raise ValueError(
        f'{path}: unknown kind of file {suffix!r}; expected one of '
        + ', '.join(SUFFIXES)
      )
    rows, numbers = read_file(file, suffix)
    return (file.name, *_cut(rows, numbers, split))
  if suffix in SUFFIXES:
    raise FileNotFoundError(
      f'{path}: no such file (working directory {pathlib.Path.cwd()})'
    )
  rows = _read_hub(path, config, split)
  return path, rows, range(1, len(rows) + 1)


def _read_hub(path: str, config: str | None, split: str | None):
  import datasets

  try:
    rows = datasets.load_dataset(path, config, split=split or 'train')
  except Exception as e:
    raise ValueError(
      f'{path!r}: no such file, and `datasets` cannot load it from the hub '
      f'or its cache ({type(e).__name__}: {e}). Give the path of a file '
      f'({", ".join(SUFFIXES)}), synthetic:NAME, or a data set on the hub; '
      f'{path}?name=CONFIG takes one of several configurations.'
    ) from e
  return rows.to_list()


def _synthetic(path: str, split: str | None):
  """Rows of a procedural world, whose splits have names, and the slice of
  them that is still to be taken."""
  from alignax.data import synthetic

  name, _, query = path.removeprefix('synthetic:').partition('?')
  kw = {k: _number(v) for k, v in urllib.parse.parse_qsl(query)}
  if split and (named := _SLICE.match(split)) and named['name']:
    kw['split'], split = named['name'], split.removeprefix(named['name'])
  return list(synthetic.rows(name, **kw)), split


def _number(text: str):
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      pass
  return {'true': True, 'false': False}.get(text.lower(), text)


def _cut(rows, numbers, split: str | None):
  """Rows of a split such as `train[:90%]`; a file has one, named train."""
  if not split:
    return rows, numbers
  found = _SLICE.match(split)
  if not found or found['name'] not in ('', 'train'):
    raise ValueError(
      f'split {split!r}: a file has no split of that name; expected '
      "'train' or a slice of it such as 'train[:90%]' or '[-100:]'"
    )
  a, b = (_bound(found[g], len(rows)) for g in 'ab')
  return rows[a:b], numbers[a:b]


def _bound(text: str | None, n: int) -> int | None:
  if not text:
    return None
  if text.endswith('%'):
    return round(int(text[:-1]) * n / 100)
  return int(text)
