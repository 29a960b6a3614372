"""Rows of a data set, where each came from, and what is wrong with some.

A row is a plain dict in one of the formats of `alignax.data.formats`. A line
that could not even be read is kept in its place as a `RowError`, so that row
numbers stay those of the file and `prepare` can count it.
"""

import bisect
import dataclasses
from collections.abc import Iterable, Sequence


class RowError(ValueError):
  """One row that cannot be used: the field, what is there, what should be.

  Attributes:
    field: name of the field, with the index of a message if it is in one.
    found: what is there, in words; `shorten` says it of a value.
    expected: what should be there, in words.
    where: file and number of the row.
  """

  def __init__(self, *, field: str, found: str, expected: str, where: str = ''):
    self.field, self.found, self.expected = field, found, expected
    self.where = where
    where = f'{where}: ' if where else ''
    super().__init__(
      f'{where}field {field!r}: found {found}, expected {expected}'
    )

  def at(self, where: str) -> 'RowError':
    """The same error of the row at another place."""
    return RowError(
      field=self.field, found=self.found, expected=self.expected, where=where
    )


def shorten(value, length: int = 80) -> str:
  """How a value appears in an error: its type, and the start of its text."""
  if value is None:
    return 'nothing'
  text = repr(value)
  if len(text) > length:
    text = text[: length - 3] + '...'
  return f'{type(value).__name__} {text}'


@dataclasses.dataclass(frozen=True)
class Source:
  """One file, split or world.

  Attributes:
    name: what error messages call it.
    rows: its rows; a `RowError` where a line could not be read.
    numbers: number of every row in its file, from 1 (a line of a jsonl).
    format: name of its format, or None if each use must detect it.
    weight: share of a mixture, or None where the sources are just joined.
  """

  name: str
  rows: Sequence[dict | RowError]
  numbers: Sequence[int]
  format: str | None = None
  weight: float | None = None


class Rows(Sequence):
  """The rows of one or several sources, one after the other."""

  def __init__(self, sources: Iterable[Source]):
    self.sources = tuple(sources)
    self._ends = []
    for source in self.sources:
      start = self._ends[-1] if self._ends else 0
      self._ends.append(start + len(source.rows))

  @classmethod
  def of(cls, rows, *, format: str | None = None) -> 'Rows':
    """`Rows` as they are; a plain list of dicts as one source without name."""
    if isinstance(rows, Rows):
      return rows
    rows = list(rows)
    numbers = range(1, len(rows) + 1)
    return cls([Source('rows', rows, numbers, format=format)])

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    source, row = self._locate(index)
    return self.sources[source].rows[row]

  def source(self, index: int) -> int:
    """Number of the source of a row."""
    return self._locate(index)[0]

  def where(self, index: int) -> str:
    """`file:number` of a row, as an editor takes it."""
    source, row = self._locate(index)
    source = self.sources[source]
    return f'{source.name}:{source.numbers[row]}'

  @property
  def weights(self) -> list[float] | None:
    """Weight of every source, or None where none was given."""
    weights = [source.weight for source in self.sources]
    return None if all(w is None for w in weights) else weights

  def _locate(self, index: int) -> tuple[int, int]:
    if not -len(self) <= index < len(self):
      raise IndexError(f'row {index} of {len(self)}')
    index %= len(self)
    source = bisect.bisect_right(self._ends, index)
    return source, index - (self._ends[source - 1] if source else 0)
