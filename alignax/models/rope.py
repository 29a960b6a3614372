"""Rotary position embeddings (Su et al., https://arxiv.org/abs/2104.09864)."""

import math

import jax.numpy as jnp
import numpy as np

from alignax.models.config import RopeScaling
from alignax.types import Array


def frequencies(
  head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> np.ndarray:
  """Radians a position, for each pair of dimensions. [head_dim / 2]."""
  freqs = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
  if scaling is None:
    return freqs.astype(np.float32)
  if scaling.kind == 'linear':
    return (freqs / scaling.factor).astype(np.float32)
  # How many full turns a pair makes over the original context decides.
  turns = scaling.original_length * freqs / (2 * math.pi)
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  keep = np.clip((turns - low) / (high - low), 0, 1)
  return (freqs * (keep + (1 - keep) / scaling.factor)).astype(np.float32)


def tables(positions: Array, freqs: np.ndarray) -> tuple[Array, Array]:
  """Cosines and sines. [B, T], [head_dim / 2] -> two [B, T, head_dim / 2]."""
  # float32 whatever the model computes in: bfloat16 rounds position 257 to 256.
  angles = positions.astype(jnp.float32)[..., None] * freqs
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
  """Rotates heads by position. x [B, T, N, head_dim], cos [B, T, head_dim/2].

  A pair is dimension i with i + head_dim / 2 (the layout of Hugging Face's
  checkpoints), not with i + 1 (Meta's).
  """
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos[:, :, None, :], sin[:, :, None, :]
  rotated = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
