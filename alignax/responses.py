"""What algorithms read off whole responses.

Tokens are [B, T], or [B, N, T] where N candidates answer one prompt. A row may
hold S packed documents, the length of `batch['examples']`; their numbers come
last: [B, S] or [B, N, S].
"""

import jax.numpy as jnp

from alignax import logps
from alignax.types import Array, Batch, Params


def response_logps(model, params: Params, batch: Batch) -> Array:
  """Log-prob of every response. Tokens [..., T] -> [..., S]."""
  return sum_responses(model.logps(params, batch), batch)


def sum_responses(token_logps: Array, batch: Batch) -> Array:
  """The sum over the learned tokens of every response. [..., T] -> [..., S]."""
  return logps.sequence_logps(
    token_logps, batch['mask'], batch['segments'], num_documents(batch)
  )


def response_lengths(batch: Batch) -> Array:
  """Learned tokens of every response, at least 1. [..., T] -> [..., S]."""
  lengths = logps.sequence_lengths(
    batch['mask'], batch['segments'], num_documents(batch)
  )
  return jnp.maximum(lengths, 1)


def num_documents(batch: Batch) -> int:
  """S, the most documents that share a row."""
  return batch['examples'].shape[-1]


def mean_logps(token_logps: Array, batch: Batch) -> Array:
  """Log-prob per learned token of every response. [..., T] -> [..., S]."""
  return sum_responses(token_logps, batch) / response_lengths(batch)
