"""The numbers that shape a sample, as arrays: changing one compiles nothing."""

from collections.abc import Sequence

import flax.struct
import numpy as np

from alignax.types import Array

UNLIMITED = np.iinfo(np.int32).max
SLOTS = 8  # Stop ids are padded to a multiple of it, so their number is free.


class Sampling(flax.struct.PyTreeNode):
  """How tokens are drawn; `make_sampling` checks and fills it.

  Attributes:
    temperature: divides the logits; 0 takes the most likely token, [].
    top_k: keep the k most likely tokens; 0 keeps all, [].
    top_p: keep the fewest tokens that hold this much probability, [].
    min_p: keep tokens at least this fraction as likely as the likeliest, [].
    repetition_penalty: makes tokens of the row less likely if above 1, [].
    min_new_tokens: tokens that stand before a stop id may be drawn, [].
    limit: a row ends after as many new tokens, [].
    stop_ids: tokens that end a row, and belong to it; -1 is none, [n].
  """

  temperature: Array
  top_k: Array
  top_p: Array
  min_p: Array
  repetition_penalty: Array
  min_new_tokens: Array
  limit: Array
  stop_ids: Array

  @property
  def logp_temperature(self) -> Array:
    """At which `logps` of a sample are taken: 1 where it is greedy."""
    return self.temperature + (self.temperature == 0)


def make_sampling(
  *,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  min_p: float = 0.0,
  repetition_penalty: float = 1.0,
  min_new_tokens: int = 0,
  max_new_tokens: int | None = None,
  stop_ids: Sequence[int] = (),
) -> Sampling:
  """Checks the numbers and makes arrays of them.

  `max_new_tokens` may be lower than the buffer that `sample` is compiled for;
  None fills the buffer.
  """
  limit = UNLIMITED if max_new_tokens is None else max_new_tokens
  _check(temperature >= 0, 'temperature', temperature, 'at least 0')
  _check(top_k >= 0, 'top_k', top_k, 'at least 0 (0 keeps every token)')
  _check(0 < top_p <= 1, 'top_p', top_p, 'in (0, 1] (1 keeps every token)')
  _check(0 <= min_p <= 1, 'min_p', min_p, 'in [0, 1] (0 keeps every token)')
  _check(
    repetition_penalty > 0,
    'repetition_penalty',
    repetition_penalty,
    'above 0 (1 is none)',
  )
  _check(limit >= 1, 'max_new_tokens', max_new_tokens, 'at least 1')
  _check(
    0 <= min_new_tokens <= limit,
    'min_new_tokens',
    min_new_tokens,
    f'from 0 to max_new_tokens ({limit})',
  )
  for token in stop_ids:
    _check(token >= 0, 'stop_ids', list(stop_ids), 'token ids, at least 0')
  slots = SLOTS * max(1, -(-len(stop_ids) // SLOTS))
  padded = [*stop_ids] + [-1] * (slots - len(stop_ids))
  return Sampling(
    temperature=np.asarray(temperature, np.float32),
    top_k=np.asarray(top_k, np.int32),
    top_p=np.asarray(top_p, np.float32),
    min_p=np.asarray(min_p, np.float32),
    repetition_penalty=np.asarray(repetition_penalty, np.float32),
    min_new_tokens=np.asarray(min_new_tokens, np.int32),
    limit=np.asarray(limit, np.int32),
    stop_ids=np.asarray(padded, np.int32),
  )


def _check(holds: bool, name: str, value, wanted: str):
  if not holds:
    raise ValueError(f'{name} is {value}; it must be {wanted}.')
