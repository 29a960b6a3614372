"""Examples: tokens, and which of them the model has to write.

Batches speak one language, all arrays [..., T]:

    inputs     tokens, all of them
    targets    the token after each
    segments   0 is padding; 1, 2, ... are the documents packed into a row
    positions  0, 1, ... in every document
    mask       whether the target is learned from

An example is one document, or the candidates of one comparison, before it is
padded or packed.
"""

import dataclasses

import numpy as np

KINDS = ('text', 'pairs', 'rankings', 'unpaired', 'prompts')


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
  """The tokens of one document, or of every candidate of one comparison.

  Attributes:
    tokens: int32 [n] of every candidate; a single one unless compared.
    learned: bool [n] of every candidate: tokens the model has to write.
    row: index of its row in the rows given to `prepare`.
    source: number of its source in a mixture.
    margin: by how much chosen is better than rejected; 0 if unknown.
    ranks: rank of every candidate, 1 is best.
    desirable: whether an unpaired response is a good one.
    category: number of the class of a text, if its row has one.
    ref_logps: log-prob of every candidate under the reference, if precomputed.
  """

  tokens: tuple[np.ndarray, ...]
  learned: tuple[np.ndarray, ...]
  row: int
  source: int = 0
  margin: float = 0.0
  ranks: tuple[int, ...] | None = None
  desirable: bool | None = None
  category: int | None = None
  ref_logps: tuple[float, ...] | None = None

  @property
  def length(self) -> int:
    """Tokens it needs in a row: those of its longest candidate."""
    return max(map(len, self.tokens))


class Examples(list):
  """A list of `Example`, with what batches need to know about all of them.

  Attributes:
    kind: 'text', 'pairs', 'rankings', 'unpaired' or 'prompts'.
    rows: the rows they come from; `rows[example.row]` is an example's own.
    weights: weight of every source of a mixture, or None.
  """

  def __init__(self, examples=(), *, kind: str, rows=(), weights=None):
    super().__init__(examples)
    self.kind, self.rows, self.weights = kind, rows, weights


def attach_ref_logps(examples: list[Example], ref_logps) -> None:
  """Puts reference log-probs, precomputed once, into examples, in place.

  Batches of these examples then have `ref_logps`, also if they were made
  before.

  Args:
    examples: the examples.
    ref_logps: log-prob of every candidate of every example, [len(examples)] or
      [len(examples), N].
  """
  if len(ref_logps) != len(examples):
    raise ValueError(
      f'ref_logps: found {len(ref_logps)} rows, expected one for each of '
      f'{len(examples)} examples'
    )
  for i, logps in enumerate(np.asarray(ref_logps, np.float64)):
    logps = tuple(np.atleast_1d(logps)[: len(examples[i].tokens)].tolist())
    examples[i] = dataclasses.replace(examples[i], ref_logps=logps)


def shift(tokens: np.ndarray, learned: np.ndarray) -> dict[str, np.ndarray]:
  """The one place where targets are moved against inputs.

      tokens   A  B  C  D        learned  -  -  x  x
      inputs   A  B  C  D
      targets  B  C  D  0        mask     -  x  x  -

  The last token stays among the inputs, without a target: a reward model reads
  it, at (last masked position) + 1.

  Args:
    tokens: one document, [n].
    learned: which of its tokens the model has to write, [n].

  Returns:
    `inputs`, `targets` and `mask`, [n].
  """
  return {
    'inputs': tokens,
    'targets': np.append(tokens[1:], np.int32(0)),
    'mask': np.append(learned[1:], False),
  }


def windows(tokens, learned, length: int) -> list[tuple]:
  """A document as pieces of a length, so that every token is a target once.

  The last token of a piece is the first of the next: it is predicted in the
  one and only read in the other.
  """
  starts = range(0, max(len(tokens) - 1, 1), length - 1)
  return [(tokens[i : i + length], learned[i : i + length]) for i in starts]
