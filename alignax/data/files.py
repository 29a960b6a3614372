"""Reads files of rows: jsonl, json, parquet, csv, tsv and plain text.

Each reader returns the rows and their numbers in the file, from 1.
"""

import csv
import gzip
import json
import pathlib

from alignax.data.rows import RowError

SUFFIXES = ('.jsonl', '.ndjson', '.json', '.parquet', '.csv', '.tsv', '.txt')


def read_file(file: pathlib.Path, suffix: str):
  if suffix == '.parquet':
    return _read_parquet(file)
  opener = gzip.open if file.suffix == '.gz' else open
  try:
    with opener(file, 'rt', encoding='utf-8', newline='') as lines:
      return _read_lines(lines, file, suffix)
  except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, csv.Error) as e:
    raise ValueError(
      f'{file}: cannot be read as {suffix[1:]} in UTF-8: {e}'
    ) from e


def _read_lines(lines, file: pathlib.Path, suffix: str):
  if suffix in ('.jsonl', '.ndjson'):
    return _read_jsonl(lines, file.name)
  if suffix in ('.csv', '.tsv'):
    return _read_csv(lines, '\t' if suffix == '.tsv' else ',')
  if suffix == '.txt':
    return _read_text(lines.read())
  return _read_json(lines.read(), file)


def _read_parquet(file: pathlib.Path):
  import pyarrow.parquet

  try:
    rows = pyarrow.parquet.read_table(file).to_pylist()
  except pyarrow.ArrowInvalid as e:
    raise ValueError(
      f'{file}: not a parquet file, or a damaged one: {e}'
    ) from e
  return rows, range(1, len(rows) + 1)


def _read_jsonl(lines, name: str):
  rows, numbers = [], []
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    numbers.append(number)
    try:
      row = json.loads(line)
    except json.JSONDecodeError as e:
      row = RowError(
        field='(line)',
        found=f'text that is not JSON ({e})',
        expected='one JSON object a line',
        where=f'{name}:{number}',
      )
    rows.append(row)
  return rows, numbers


def _read_json(text: str, file: pathlib.Path):
  try:
    rows = json.loads(text)
  except json.JSONDecodeError as e:
    raise ValueError(
      f'{file}: not JSON ({e}); expected a list of objects '
      '(name a file with one object a line .jsonl)'
    ) from e
  if isinstance(rows, dict):
    lists = [v for v in rows.values() if isinstance(v, list)]
    rows = lists[0] if len(lists) == 1 else [rows]
  if not isinstance(rows, list):
    raise ValueError(
      f'{file}: found {type(rows).__name__}, expected a list of objects'
    )
  return rows, range(1, len(rows) + 1)


def _read_csv(lines, delimiter: str):
  csv.field_size_limit(1 << 30)
  rows = list(csv.DictReader(lines, delimiter=delimiter))
  rows = [{k: _unquote(v) for k, v in row.items() if k} for row in rows]
  return rows, range(1, len(rows) + 1)


def _unquote(value: str):
  """Lists and objects sit in a csv cell as JSON."""
  if value and value[0] + value[-1] in ('[]', '{}'):
    try:
      return json.loads(value)
    except json.JSONDecodeError:
      return value
  return value


def _read_text(text: str):
  """A text file is one document; blank lines do not divide it."""
  return ([{'text': text}] if text.strip() else []), range(1, 2)
