"""A model and batches as small as meshes and steps can be tested with."""

import dataclasses

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from alignax import models, sharding, train

CONFIG = models.Config(
  vocab_size=32,
  width=16,
  depth=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  mlp_width=16,
  remat='none',
)
LENGTH = 12
MESHES = ((8, 1, 1), (1, 8, 1), (2, 2, 2))


def make_model(**overrides):
  return models.Model(dataclasses.replace(CONFIG, **overrides))


def make_params(model, seed=0, *, value_head=False, scale=8.0):
  """Parameters whose log-probs differ from token to token."""
  params = model.init(jax.random.key(seed), value_head=value_head)
  table = params['embed']['embedding']
  params['embed']['embedding'] = table * scale
  if value_head:
    key = jax.random.key(seed + 100)
    head = params['value_head']
    head['kernel'] = 0.3 * jax.random.normal(key, head['kernel'].shape)
  return params


def make_mesh(sizes=(1, 1, 1)):
  """A mesh of the first devices, as many as it needs."""
  count = int(np.prod(sizes))
  devices = np.array(jax.devices()[:count]).reshape(sizes)
  names = ('data', 'fsdp', 'tensor')
  return Mesh(devices, names, axis_types=(AxisType.Auto,) * 3)


def rows(lengths, *, prompt=3, seed=0, length=LENGTH):
  """Unpacked rows of the given lengths, learned from after the prompt."""
  rng = np.random.default_rng(seed)
  shape = (*np.shape(lengths), length)
  steps = np.arange(length)
  lengths = np.asarray(lengths)[..., None]
  exists = steps < lengths
  tokens = np.where(exists, rng.integers(1, 32, shape), 0).astype(np.int32)
  targets = np.concatenate([tokens[..., 1:], tokens[..., :1] * 0], axis=-1)
  return {
    'inputs': tokens,
    'targets': targets.astype(np.int32),
    'segments': exists.astype(np.int32),
    'positions': np.where(exists, steps, 0).astype(np.int32),
    'mask': (steps >= prompt - 1) & (steps < lengths - 1),
  }


def text(batch=8, seed=0):
  """Rows of uneven length: every row has another number of targets."""
  lengths = np.random.default_rng(seed).integers(4, LENGTH + 1, batch)
  return rows(lengths, seed=seed)


def comparisons(batch=8, candidates=2, seed=0):
  """Pairs, or the responses of a ranking, one example a row."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(5, LENGTH + 1, (batch, candidates))
  found = rows(lengths, seed=seed)
  found['inputs'][..., :3] = found['inputs'][:, :1, :3]  # The prompt.
  found['targets'][..., :2] = found['targets'][:, :1, :2]
  examples = np.ones((batch, 1), bool)
  return found | {
    'examples': examples,
    'margins': np.zeros(examples.shape, np.float32),
  }


def unpaired(batch=8, seed=0):
  """Good and bad responses, and prompts with responses to others."""
  rng = np.random.default_rng(seed)
  examples = np.ones((batch, 1), bool)
  return text(batch, seed) | {
    'examples': examples,
    'desirable': rng.random((batch, 1)) < 0.5,
    'mismatched': text(batch, seed + 100) | {'examples': examples},
  }


def prompts(batch=8, length=5, seed=0):
  """Prompts of different lengths, padded on the left."""
  rng = np.random.default_rng(seed)
  exists = np.arange(length) >= rng.integers(0, length - 1, (batch, 1))
  inputs = np.where(exists, rng.integers(1, 32, (batch, length)), 0)
  positions = np.cumsum(exists, axis=1) - 1
  return {
    'inputs': inputs.astype(np.int32),
    'segments': exists.astype(np.int32),
    'positions': np.where(exists, positions, 0).astype(np.int32),
    'row': np.arange(batch, dtype=np.int32),
  }


def place(mesh, tree):
  """A tree where the rules put it on a mesh."""
  where = sharding.shard_by_rules(mesh, sharding.TRANSFORMER_RULES, tree)
  # A copy: tests use their parameters again after a step has donated them.
  return jax.device_put(jax.tree.map(np.array, tree), where)


def make_state(mesh, params, tx, **kw):
  """A state on a mesh, and where its parts live."""
  state = train.init_state(jax.tree.map(np.array, params), tx, **kw)
  where = sharding.shard_by_rules(mesh, sharding.TRANSFORMER_RULES, state)
  return jax.device_put(jax.tree.map(np.array, state), where), where


def assert_trees_close(a, b, *, atol=0.0, rtol=0.0):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      np.asarray(x), np.asarray(y), atol=atol, rtol=rtol
    ),
    a,
    b,
  )
