"""Prompts with responses to other prompts: what KTO's reference point reads.

It is done here, on tokens, and not where the loss is: lengths are known, the
whole batch is at hand on every host, and which pairs there are is a function of
(seed, step) as the batch itself is, whatever the number of hosts and devices.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from alignax.data.examples import Example

Row = Sequence[Example]


def mismatched_rows(rows: Sequence[Row], length: int) -> list[list[Example]]:
  """Every prompt of a batch with the response to another of its prompts.

  The response is that of the next document that answers another prompt: of the
  same row where there is one, which then needs no more room than before, else
  of the rows that follow. What does not fit is cut at its end. Prompts without
  such a partner are left out.

  Args:
    rows: the documents of every row of a batch.
    length: T.

  Returns:
    The documents of as many rows.
  """
  return [_filled(_others(rows, r), length) for r in range(len(rows))]


def _others(rows: Sequence[Row], r: int) -> Iterator[Example]:
  """The documents of a row, each with the response of its partner."""
  for d, example in enumerate(rows[r]):
    partner = _partner(rows, r, d)
    if partner is not None:
      yield _exchanged(example, partner)


def _partner(rows: Sequence[Row], r: int, d: int) -> Example | None:
  prompt = _prompt(rows[r][d])
  after = [rows[(r + i) % len(rows)] for i in range(1, len(rows))]
  for row in ([*rows[r][d + 1 :], *rows[r][:d]], *after):
    for other in row:
      if not np.array_equal(_prompt(other), prompt):
        return other
  return None


def _exchanged(example: Example, other: Example) -> Example:
  """The prompt of one document with the response of another."""
  start, others = _start(example), _start(other)
  join = lambda x, y: np.concatenate([x[0][:start], y[0][others:]])
  return dataclasses.replace(
    example,
    tokens=(join(example.tokens, other.tokens),),
    learned=(join(example.learned, other.learned),),
    desirable=other.desirable,
    ref_logps=None,
  )


def _filled(examples: Iterator[Example], length: int) -> list[Example]:
  """Documents until their row is full; what is left of the last is cut."""
  fitting, room = [], length
  for example in examples:
    tokens, learned = example.tokens[0][:room], example.learned[0][:room]
    if learned[1:].any():  # There is something of the response to read.
      fitting.append(
        dataclasses.replace(example, tokens=(tokens,), learned=(learned,))
      )
      room -= len(tokens)
  return fitting


def _start(example: Example) -> int:
  """Where the response begins."""
  return int(np.argmax(example.learned[0]))


def _prompt(example: Example) -> np.ndarray:
  return example.tokens[0][: _start(example)]
