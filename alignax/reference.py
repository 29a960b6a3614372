"""Log-probs of the reference, computed once for a whole data set."""

import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from alignax import data, reading, sharding


def with_reference(config, algorithm, roles, found, mesh, workdir):
  """Computes reference log-probs once for the whole data set, if asked to.

  They are kept in the examples, and in the run's directory for when it goes
  on; the reference is dropped from memory.
  """
  if not config.data.precompute_ref:
    return found
  if not hasattr(algorithm, 'reference_logps'):
    raise ValueError(
      f'data.precompute_ref: {config.algorithm} has no reference log-probs.'
    )
  compute = algorithm.reference_logps(
    roles.models['ref'], **config.algorithm_kw
  )
  ref = roles.join({}, roles.frozen)[1]['ref']
  del roles.frozen['ref']
  path = workdir / 'reference.npz'
  sets = {'training': found.batches.examples, 'heldout': found.heldout}
  sets = {name: examples for name, examples in sets.items() if examples}
  digests = {f'{name}_digest': digest(rows) for name, rows in sets.items()}
  digests['ref_digest'] = checksum(ref)
  logps = load(path, digests)
  if logps is None:
    logps = {
      name: reference_logps(config, found, examples, mesh, compute, ref)
      for name, examples in sets.items()
    }
    store(path, logps | digests)
  for name, examples in sets.items():
    data.attach_ref_logps(examples, logps[name])
  return found


def digest(examples) -> str:
  """Of what reference log-probs are of: tokens, and which are learned."""
  hashed = hashlib.sha256()
  for example in examples:
    hashed.update(len(example.tokens).to_bytes(8, 'little'))
    for tokens, learned in zip(example.tokens, example.learned):
      hashed.update(len(tokens).to_bytes(8, 'little'))
      hashed.update(tokens.tobytes() + learned.tobytes())
  return hashed.hexdigest()


def checksum(params) -> str:
  """Of the bits of all parameters, on whatever mesh they are."""
  hashed = hashlib.sha256()
  for total in jax.tree.leaves(_sums(params)):
    hashed.update(int(total).to_bytes(4, 'little'))
  return hashed.hexdigest()


@jax.jit
def _sums(params):
  """Every array's bits, summed as integers: in any order it is the same."""
  bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}

  def total(x):
    x = jax.lax.bitcast_convert_type(x, bits[x.dtype.itemsize])
    # By its place, so that two that change places are told apart.
    places = jax.lax.iota(jnp.uint32, x.size).reshape(x.shape)
    return jnp.sum(x.astype(jnp.uint32) * (2 * places + 1))

  return jax.tree.map(total, params)


def load(path: pathlib.Path, digests: dict[str, str]) -> dict | None:
  """What is stored of these very examples and model; None if nothing is.

  The config of a run cannot change, but the files that it names can.
  """
  if not path.exists():
    return None
  with np.load(path) as stored:
    found = dict(stored)
  if all(str(found.get(name)) == value for name, value in digests.items()):
    return found
  if jax.process_index() == 0:
    print(
      f'{path} is of other data or another reference than this: its '
      'log-probs are computed anew.',
      flush=True,
    )
  return None


def store(path: pathlib.Path, found: dict):
  """Writes log-probs and digests whole or not at all."""
  if jax.process_index() == 0:
    new = path.with_name('new-reference.npz')
    np.savez(new, **found)
    new.replace(path)


def reference_logps(config, found, examples, mesh, compute, ref) -> np.ndarray:
  """Log-probs of the responses of every example, [examples, 2]."""
  one_by_one = data.Batches(
    examples,
    kind=found.batches.kind,
    length=config.data.length,
    batch_size=config.data.batch_size,
    seed=0,
    shuffle=False,
    repeat=False,
    **reading.hosts(),
  )
  values = []
  for batch in tqdm(one_by_one, desc='reference', unit='batch'):
    batch = sharding.shard_batch(mesh, batch)
    values.append(sharding.to_host(compute(ref, batch))[..., 0])
  return np.concatenate(values)[: len(examples)]
