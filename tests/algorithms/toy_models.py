"""A policy that is a table, with the methods that algorithms ask a model for.

The next token depends on the last one alone, so a program around it compiles
in a moment and its optimum can be written down.
"""

import dataclasses
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignax import data

SIZE = 6  # Tokens.


class NoCache(NamedTuple):
  positions: jax.Array


@dataclasses.dataclass(frozen=True)
class Bigram:
  """Logits of the next token by the last one, values too."""

  def hidden(self, params, batch):
    return jax.nn.one_hot(batch['inputs'], SIZE)

  def head_stats_of(self, params, hidden, batch, *, temperature=1.0,
                    entropy=False):  # fmt: skip
    logits = hidden @ params['embed']['embedding'] / temperature
    logps = jax.nn.log_softmax(logits)
    of_target = jnp.take_along_axis(logps, batch['targets'][..., None], -1)
    return types.SimpleNamespace(
      logps=jnp.where(batch['mask'], of_target[..., 0], 0.0),
      logz=jnp.where(batch['mask'], jax.nn.logsumexp(logits, axis=-1), 0.0),
      entropy=-jnp.sum(jnp.exp(logps) * logps, -1) if entropy else None,
    )

  def logps(self, params, batch, *, temperature=1.0):
    hidden = self.hidden(params, batch)
    stats = self.head_stats_of(params, hidden, batch, temperature=temperature)
    return stats.logps

  def values(self, params, batch):
    head = params['value_head']
    return self.hidden(params, batch) @ head['kernel'] + head['bias']

  def for_decoding(self, params, cache, *, unroll=False):
    return params, cache

  def init_cache(self, batch_size, length):
    return NoCache(jnp.zeros((batch_size,), jnp.int32))

  def repeat_cache(self, cache, times):
    return NoCache(jnp.repeat(cache.positions, times))

  def extend(self, params, cache, inputs, segments, positions):
    return jax.nn.one_hot(inputs, SIZE), cache

  def decode(self, params, cache, tokens):
    return params['embed']['embedding'][tokens], cache


def table(seed=0, scale=1.0):
  """A policy's parameters."""
  rng = np.random.default_rng(seed)
  return {
    'embed': {
      'embedding': (scale * rng.normal(size=(SIZE, SIZE))).astype(np.float32)
    }
  }


def values(seed=0, scale=0.0):
  """A value function's parameters."""
  rng = np.random.default_rng(seed)
  kernel = (scale * rng.normal(size=SIZE)).astype(np.float32)
  return {'value_head': {'kernel': kernel, 'bias': np.float32(0)}}


def comparisons(kind='pairs', number=8, candidates=2, *, packing=False):
  """A batch of responses to short prompts, ranked as they come."""
  rng = np.random.default_rng(number)
  found = []
  for row in range(number):
    prompt = rng.integers(0, SIZE, rng.integers(1, 3))
    tokens = [
      np.concatenate([prompt, rng.integers(0, SIZE, rng.integers(2, 6))])
      for _ in range(candidates)
    ]
    learned = tuple(np.arange(len(t)) >= len(prompt) for t in tokens)
    tokens = tuple(t.astype(np.int32) for t in tokens)
    ranks = tuple(rng.permutation(candidates) + 1)
    ranks = ranks if kind == 'rankings' else None
    desirable = row % 3 == 0 if kind == 'unpaired' else None
    found.append(
      data.Example(tokens, learned, row, ranks=ranks, desirable=desirable)
    )
  return data.Batches(
    data.Examples(found, kind=kind), kind=kind, length=24 if packing else 8,
    seed=0, packing=packing, batch_size=4 if packing else number,
    shuffle=False, repeat=False,
  )[0]  # fmt: skip


def token_logps(params, batch, temperature=1.0):
  """As `Bigram.logps`, by numpy."""
  logits = params['embed']['embedding'].astype(np.float64) / temperature
  logps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return np.where(batch['mask'], logps[batch['inputs'], batch['targets']], 0)


def prompts(batch=32, length=3, seed=0):
  """Prompts without padding."""
  rng = np.random.default_rng(seed)
  return {
    'inputs': rng.integers(0, SIZE, (batch, length)).astype(np.int32),
    'segments': np.ones((batch, length), np.int32),
    'positions': np.tile(np.arange(length, dtype=np.int32), (batch, 1)),
    'row': np.arange(batch, dtype=np.int32),
  }
