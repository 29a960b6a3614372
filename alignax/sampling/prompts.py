"""Prompts of different lengths as one batch, padded on the left."""

from collections.abc import Sequence

import numpy as np

SHORTEST = 16


def left_pad(
  prompts: Sequence[Sequence[int]], *, length: int | None = None
) -> dict[str, np.ndarray]:
  """Lists of tokens as inputs, segments and positions, [B, P].

  All prompts end in the last column, so that all rows write their next token
  to the same slot of the cache. Without `length`, P is the next power of two:
  few lengths are ever compiled. A list without tokens is a row of padding.
  """
  longest = max(map(len, prompts), default=0)
  length = bucket(longest) if length is None else length
  if longest > length:
    raise ValueError(
      f'A prompt has {longest} tokens, the batch has room for {length}; raise '
      'the length or cut the prompt.'
    )
  names = ('inputs', 'segments', 'positions')
  batch = {name: np.zeros((len(prompts), length), np.int32) for name in names}
  for i, tokens in enumerate(prompts):
    row = slice(length - len(tokens), length)
    batch['inputs'][i, row] = tokens
    batch['segments'][i, row] = 1
    batch['positions'][i, row] = np.arange(len(tokens))
  return batch


def bucket(length: int) -> int:
  """The next power of two, 16 or more."""
  return max(SHORTEST, 1 << (length - 1).bit_length())
