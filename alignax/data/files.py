"""Reads files of rows: jsonl, json, parquet, csv, tsv and plain text.

Each reader returns the rows and their numbers in the file, from 1.
"""

import csv
import gzip
import json
import pathlib

from alignax.data.messages import is_chat
from alignax.data.rows import RowError

SUFFIXES = ('.jsonl', '.ndjson', '.json', '.parquet', '.csv', '.tsv', '.txt')
TABLES = ('.csv', '.tsv')
# Columns of tables that formats and checkers read as lists,
LISTS = (
  'messages', 'conversations', 'history', 'responses', 'completions', 'ranks',
  'scores', 'instruction_id_list', 'kwargs',
)  # fmt: skip
# and those that are text, or messages.
TEXT_OR_CHAT = (
  'prompt', 'completion', 'response', 'output', 'chosen', 'rejected',
)  # fmt: skip


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
  if suffix in TABLES:
    return _read_csv(lines, file.name, '\t' if suffix == '.tsv' else ',')
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


def _read_csv(lines, name: str, delimiter: str):
  csv.field_size_limit(1 << 30)
  lines = csv.reader(lines, delimiter=delimiter)
  header, *rows = [cells for cells in lines if cells] or [[]]
  numbers = range(1, len(rows) + 1)
  rows = [
    _table_row(header, cells, f'{name}:{number}')
    for number, cells in zip(numbers, rows)
  ]
  return rows, numbers


def _table_row(header: list[str], cells: list[str], where: str):
  """A row by its columns; one of another length says nothing of which cell is
  whose."""
  if len(cells) != len(header):
    return RowError(
      field='(line)',
      found=f'{len(cells)} cells',
      expected=f'{len(header)}, those of {", ".join(header)} (a cell with the '
      'delimiter in it stands in double quotes)',
      where=where,
    )
  return {column: cell for column, cell in zip(header, cells) if column}


def structured(row):
  """A row of a table whose lists and messages, JSON in a cell, are read.

  They are where a format has them and nowhere else: an answer that is a JSON
  list is text like any other.
  """
  if not isinstance(row, dict):
    return row
  return {column: _structured(column, cell) for column, cell in row.items()}


def _structured(column: str, cell: str):
  if column not in (*LISTS, *TEXT_OR_CHAT):
    return cell
  try:
    value = json.loads(cell)
  except (ValueError, RecursionError):
    return cell
  is_list = column in LISTS and isinstance(value, list)
  return value if is_list or is_chat(value) else cell


def _read_text(text: str):
  """A text file is one document; blank lines do not divide it."""
  return ([{'text': text}] if text.strip() else []), range(1, 2)
