"""Sampling between two policies: the geometric mixture of their choices."""

import dataclasses
from typing import Any

from alignax.types import Array, Params


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A model to `sample` from whose parameters are those of two, (a, b).

    log π(v) = (1 - α) log π_a(v) + α log π_b(v) + const.

  As the constant is that of a softmax, logits are mixed as they are. It has
  the methods that sampling asks for, and no others; its cache is two.

  See Munos et al., section 7 (https://arxiv.org/abs/2312.00886).

  Attributes:
    model: of both.
    share: α, of the second.
  """

  model: Any
  share: float

  def init_cache(self, batch_size: int, length: int):
    make = lambda: self.model.init_cache(batch_size, length)
    return make(), make()

  def repeat_cache(self, cache, times: int):
    return tuple(self.model.repeat_cache(c, times) for c in cache)

  def extend(self, params: Params, cache, *tokens: Array):
    both = self._both('extend', params, cache, *tokens)
    return both[0][0], tuple(cache for _, cache in both)

  def for_decoding(self, params: Params, cache, *, unroll: bool = False):
    return tuple(zip(*self._both('for_decoding', params, cache, unroll=unroll)))

  def decode(self, params: Params, cache, tokens: Array):
    """Logits of the mixture, [B, V], and the two caches."""
    (a, first), (b, second) = self._both('decode', params, cache, tokens)
    return (1 - self.share) * a + self.share * b, (first, second)

  def _both(self, name, params, cache, *args, **kw):
    call = getattr(self.model, name)
    return [call(p, c, *args, **kw) for p, c in zip(params, cache)]
