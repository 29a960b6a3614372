"""Several documents in one row, and the arrays of a row."""

from collections.abc import Sequence

import numpy as np

from alignax.data.examples import Example, shift


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
  """Best-fit decreasing: longest first, into the fullest bin that has room.

  Takes O(n log n + n capacity / 64): bins are kept by the room they have left,
  and a bit for every room that some bin has finds the tightest that fits.

  Johnson, "Near-optimal bin packing algorithms", 1973
  (https://dspace.mit.edu/handle/1721.1/57819).

  Args:
    lengths: length of every document.
    capacity: length of a bin.

  Returns:
    The documents of every bin, by number; in each, longest first.
  """
  lengths = np.asarray(lengths, np.int64)
  if len(lengths) and lengths.max() > capacity:
    raise ValueError(
      f'a document of {lengths.max()} tokens does not fit a row of '
      f'{capacity}; prepare the data with length={capacity}'
    )
  bins, by_room, rooms = [], [[] for _ in range(capacity + 1)], 0
  for document in np.argsort(-lengths, kind='stable').tolist():
    length = int(lengths[document])
    fitting = rooms >> length
    if fitting:
      room = length + (fitting & -fitting).bit_length() - 1
      number = by_room[room].pop()
      if not by_room[room]:
        rooms ^= 1 << room
    else:
      room, number = capacity, len(bins)
      bins.append([])
    bins[number].append(document)
    by_room[room - length].append(number)
    rooms |= 1 << (room - length)
  return bins


def make_row(
  examples: Sequence[Example],
  *,
  kind: str,
  length: int,
  segments: int = 1,
  candidates: int = 1,
  ref_logps: bool = False,
  classes: bool = False,
) -> dict[str, np.ndarray]:
  """One row of a batch of a kind, from the examples that share it.

  Args:
    examples: documents 1, 2, ... of the row; none makes a row of padding.
    kind: kind of the batch.
    length: T.
    segments: S, how many documents a row can have.
    candidates: N, how many candidates an example can have.
    ref_logps: whether the examples hold log-probs under the reference.
    classes: whether tokens of texts have the class of their document.

  Returns:
    The arrays of the batch language without their batch axis.
  """
  if kind == 'prompts':
    return _prompt_row(examples, length)
  row = _lay_out(examples, length, candidates)
  if kind in ('text', 'unpaired'):
    row = {name: array[0] for name, array in row.items()}
  if kind == 'text':
    if classes:  # Of padding: 0.
      of_segment = np.array([0, *(e.category for e in examples)], np.int32)
      row['classes'] = of_segment[row['segments']]
    return row
  row['examples'] = np.arange(segments) < len(examples)
  padded = lambda values, dtype, shape=(): _padded(
    values, np.zeros((segments, *shape), dtype)
  )
  if kind == 'pairs':
    row['margins'] = padded([e.margin for e in examples], np.float32)
  elif kind == 'rankings':
    ranks = [e.ranks for e in examples]
    row['ranks'] = padded(ranks, np.int32, (candidates,))
  else:
    row['desirable'] = padded([e.desirable for e in examples], bool)
  if ref_logps:
    logps = padded([e.ref_logps for e in examples], np.float32, (candidates,))
    row['ref_logps'] = logps.T if kind in ('pairs', 'rankings') else logps[:, 0]
  return row


def _lay_out(examples, length: int, candidates: int) -> dict[str, np.ndarray]:
  """Documents one after the other, every candidate in a row of its own."""
  zeros = lambda dtype: np.zeros((candidates, length), dtype)
  row = {
    'inputs': zeros(np.int32),
    'targets': zeros(np.int32),
    'segments': zeros(np.int32),
    'positions': zeros(np.int32),
    'mask': zeros(bool),
  }
  ends = [0] * candidates
  for number, example in enumerate(examples, 1):
    for c, (tokens, learned) in enumerate(zip(example.tokens, example.learned)):
      here = slice(ends[c], ends[c] + len(tokens))
      for name, array in shift(tokens, learned).items():
        row[name][c, here] = array
      row['segments'][c, here] = number
      row['positions'][c, here] = np.arange(len(tokens))
      ends[c] = here.stop
  return row


def _prompt_row(examples, length: int) -> dict[str, np.ndarray]:
  """Prompts end at the right edge, where their responses begin."""
  row = {
    name: np.zeros(length, np.int32)
    for name in ('inputs', 'segments', 'positions')
  }
  row['row'] = np.int32(-1)
  for example in examples:
    tokens = example.tokens[0]
    here = slice(length - len(tokens), length)
    row['inputs'][here] = tokens
    row['segments'][here] = 1
    row['positions'][here] = np.arange(len(tokens))
    row['row'] = np.int32(example.row)
  return row


def _padded(values, array: np.ndarray) -> np.ndarray:
  for i, value in enumerate(values):
    array[i, ...] = 0
    if np.ndim(value):
      array[i, : len(value)] = value
    else:
      array[i] = value
  return array
