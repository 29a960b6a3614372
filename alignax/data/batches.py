"""Batches as a pure function of the seed and the step.

`batches[step]` is computed, not read from a stream: resuming a run is indexing,
and every host can compute its own rows of any step.
"""

from collections.abc import Iterator, Sequence

import grain
import numpy as np

from alignax.data.examples import KINDS, Example
from alignax.data.mismatched import mismatched_rows
from alignax.data.packing import best_fit, make_row

_FOREVER = 2**40  # steps; more than anyone takes, and grain can count them


class Batches(Sequence):
  """The batches of a data set.

  Rows are shuffled anew in every epoch. Batches run on over the end of an
  epoch, so that no row is left out; with `repeat=False` the last batch is
  filled up with rows of padding, of segment 0 and mask False throughout.

  Hosts hold disjoint parts of the rows of a step: together, in the order of
  their index, they are the batch of a single host.

  Attributes:
    examples: what the batches are made of.
    num_rows: rows in an epoch, each of one example or, packed, of several.
    num_segments: S, the most examples that share a row.
    num_candidates: N, the most candidates that an example has.
    tokens: tokens in an epoch, padding left out.
    fill: share of an epoch's tokens that are not padding.
    rows: the rows the examples were made of; `rows[i]` for `batch['row']`.
  """

  def __init__(
    self,
    examples: Sequence[Example],
    *,
    kind: str,
    length: int,
    batch_size: int,
    seed: int,
    packing: bool = False,
    shuffle: bool = True,
    repeat: bool = True,
    weights: Sequence[float] | None = None,
    mismatched: bool = False,
    classes: int = 0,
    process_index: int = 0,
    process_count: int = 1,
  ):
    """Lays out the rows of an epoch.

    Args:
      examples: of `prepare`.
      kind: of the examples.
      length: T of the batches; no example may be longer.
      batch_size: rows in a step on all hosts together.
      seed: seed of the order of rows.
      packing: several examples in a row, best fit; not for prompts.
      shuffle: a new order in every epoch, instead of that of the examples.
      repeat: go on with the next epoch after the last row.
      weights: weight of every source; those of the examples if None.
      mismatched: whether unpaired batches have `mismatched`, a batch of the
        same prompts with responses to others of them.
      classes: how many classes there are, if batches of text are to have the
        class of every token, `classes` [B, T]; the field `class` of every row
        is then a number below.
      process_index: number of this host.
      process_count: number of hosts.
    """
    weights = weights or getattr(examples, 'weights', None)
    _check_examples(examples, kind, length, packing)
    if mismatched and kind != 'unpaired':
      raise ValueError(f"mismatched: kind is {kind!r}, expected 'unpaired'")
    self.kind, self.length, self.repeat = kind, length, repeat
    self.mismatched, self.classes = mismatched, classes
    if classes:
      _check_classes(examples, classes, kind)
    self.rows = getattr(examples, 'rows', ())
    self.examples = examples
    parts = _by_source(examples, weights)
    bins = [_bins(examples, part, length, packing) for part in parts]
    self.num_rows = sum(map(len, bins))
    self.num_segments = max(len(b) for part in bins for b in part)
    self.num_candidates = (
      2 if kind == 'pairs' else max(len(e.tokens) for e in examples)
    )
    self.tokens = sum(len(t) for e in examples for t in e.tokens)
    room = self.num_rows * length * self.num_candidates
    self.fill = self.tokens / room
    _check_sizes(
      batch_size, self.num_rows, process_count, process_index, repeat
    )
    self.batch_size, share = batch_size, batch_size // process_count
    self._mine = slice(process_index * share, (process_index + 1) * share)
    self._order = _order(bins, seed, shuffle, repeat, weights)

  def __len__(self) -> int:
    """Steps in an epoch."""
    if self.repeat:
      return max(self.num_rows // self.batch_size, 1)
    return -(-self.num_rows // self.batch_size)

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """This host's rows of the batch of a step."""
    batch = self._stack(self._examples(step, self._mine))
    if self.mismatched:
      # Partners may be in rows of other hosts.
      rows = self._examples(step, slice(0, self.batch_size))
      others = mismatched_rows(rows, self.length)
      batch['mismatched'] = self._stack(others[self._mine], ref_logps=False)
    return batch

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    """One epoch."""
    return self.iterate(0, len(self))

  def iterate(
    self, start: int = 0, stop: int | None = None, *, ahead: int = 4
  ) -> Iterator[dict[str, np.ndarray]]:
    """Batches from a step on, the next few made in the background.

    Args:
      start: first step.
      stop: step to end before; without it, forever or to the end of one pass.
      ahead: how many batches are made before they are asked for.
    """
    if stop is None:
      stop = _FOREVER if self.repeat else len(self)
    steps = grain.MapDataset.range(start, stop).map(self.__getitem__)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
    return iter(steps.to_iter_dataset(options))

  def where(self, step: int, *, most: int = 8) -> str:
    """Files and numbers of the rows in this host's batch of a step."""
    name = getattr(self.rows, 'where', lambda row: f'row {row}')
    rows = self._examples(step, self._mine)
    rows = [example.row for row in rows for example in row]
    rows = list(dict.fromkeys(rows))
    more = f' and {len(rows) - most} more' if len(rows) > most else ''
    return ', '.join(map(name, rows[:most])) + more

  def _examples(self, step: int, part: slice) -> list[list[Example]]:
    """The examples in each row of a step, of this part of its rows."""
    if step < 0 or (not self.repeat and step >= len(self)):
      raise IndexError(f'step {step} of {len(self)}')
    start = int(step) * self.batch_size
    rows = range(start, start + self.batch_size)[part]
    # Beyond the end of one pass there is padding.
    beyond = lambda i: not self.repeat and i >= self.num_rows
    numbers = [() if beyond(i) else self._order[i] for i in rows]
    return [[self.examples[n] for n in row] for row in numbers]

  def _stack(self, rows, *, ref_logps: bool = True) -> dict[str, np.ndarray]:
    """A batch of rows, each given by the examples that share it."""
    ref_logps = ref_logps and self.examples[0].ref_logps is not None
    rows = [
      make_row(
        row,
        kind=self.kind,
        length=self.length,
        segments=self.num_segments,
        candidates=self.num_candidates,
        ref_logps=ref_logps,
        classes=self.classes > 0,
      )
      for row in rows
    ]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _by_source(examples, weights) -> list[list[int]]:
  """Numbers of the examples of every source; without weights, all in one."""
  if weights is None:
    return [list(range(len(examples)))]
  parts = [[] for _ in weights]
  for number, example in enumerate(examples):
    parts[example.source].append(number)
  for source, part in enumerate(parts):
    if not part:
      raise ValueError(
        f'mixture: source {source} has a weight of {weights[source]} but not '
        'one usable example; see the report, or leave it out'
      )
  return parts


def _bins(examples, numbers, length: int, packing: bool) -> list[list[int]]:
  if not packing:
    return [[number] for number in numbers]
  lengths = [examples[number].length for number in numbers]
  return [[numbers[i] for i in row] for row in best_fit(lengths, length)]


def _order(bins, seed: int, shuffle: bool, repeat: bool, weights):
  """Row i of the whole run, by random access."""
  parts = []
  for source, part in enumerate(bins):
    # Sources shuffle apart, and not as a run of another seed does.
    own = int(np.random.SeedSequence([seed, source]).generate_state(1)[0])
    rows = grain.MapDataset.source(part).seed(own)
    rows = rows.shuffle() if shuffle else rows
    parts.append(rows.repeat() if repeat else rows)
  if weights is None:
    return parts[0]
  if not repeat:
    return grain.MapDataset.concatenate(parts)
  return grain.MapDataset.mix(parts, weights=list(weights))


def _check_examples(examples, kind: str, length: int, packing: bool) -> None:
  if kind not in KINDS:
    raise ValueError(f'kind {kind!r}: expected one of {", ".join(KINDS)}')
  if not len(examples):
    raise ValueError('the data set is empty: found 0 examples, expected some')
  made = getattr(examples, 'kind', kind)
  if made != kind:
    raise ValueError(
      f'kind {kind!r}, but the examples were prepared with kind={made!r}'
    )
  if kind == 'prompts' and packing:
    raise ValueError('prompts cannot be packed: each needs a row to go on in')
  longest = max(example.length for example in examples)
  if longest > length:
    raise ValueError(
      f'length {length}, but an example has {longest} tokens; '
      f'prepare the data with length={length}'
    )


def _check_classes(examples, classes: int, kind: str) -> None:
  if kind != 'text':
    raise ValueError(f"classes: kind is {kind!r}, expected 'text'")
  rows = getattr(examples, 'rows', ())
  for example in examples:
    if example.category is None or example.category >= classes:
      name = getattr(rows, 'where', lambda row: f'row {row}')
      raise ValueError(
        f"{name(example.row)}: field 'class': found {example.category}, "
        f'expected a number from 0 to {classes - 1}, the class of the row'
      )


def _check_sizes(batch_size, rows, process_count, process_index, repeat):
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f'batch_size {batch_size}: expected a multiple of the '
      f'{process_count} hosts, at least one row for each'
    )
  if not 0 <= process_index < process_count:
    raise ValueError(
      f'process_index {process_index}: expected 0 to {process_count - 1}'
    )
  if repeat and batch_size > rows:
    raise ValueError(
      f'batch_size {batch_size} is larger than the data set of {rows} rows; '
      'take a smaller batch, more data, or no packing'
    )
