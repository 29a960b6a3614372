"""A model small enough to sample from in a test, and prompts for it."""

import dataclasses

import jax
import numpy as np

from alignax.models import Config, Model

CONFIG = Config(
  vocab_size=37,
  width=16,
  depth=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  mlp_width=24,
  tie_embeddings=False,
)


def make_model(**overrides):
  """A random model whose next-token choices are neither flat nor sharp."""
  model = Model(dataclasses.replace(CONFIG, **overrides))
  params = model.init(jax.random.key(0))
  return model, jax.tree_util.tree_map_with_path(_spread, params)


def _spread(path, x):
  return x * 20 if path[-1].key == 'embedding' else x


def left_pad(tokens, length, pad=0):
  """Lists of tokens as prompts [B, P]."""
  inputs = np.full((len(tokens), length), pad, np.int32)
  segments = np.zeros_like(inputs)
  positions = np.zeros_like(inputs)
  for i, row in enumerate(tokens):
    at = slice(length - len(row), length)
    inputs[i, at], segments[i, at] = row, 1
    positions[i, at] = np.arange(len(row))
  return {'inputs': inputs, 'segments': segments, 'positions': positions}


def make_prompts(batch=4, length=7, seed=0, vocab=37):
  """Prompts of different lengths, one of them of a single token."""
  rng = np.random.default_rng(seed)
  sizes = [1 + i * (length - 1) // max(1, batch - 1) for i in range(batch)]
  return left_pad([rng.integers(0, vocab, n) for n in sizes], length)


def response(rows, i):
  """Tokens of response i, by the mask."""
  return np.asarray(rows['targets'])[i][np.asarray(rows['mask'])[i]]
