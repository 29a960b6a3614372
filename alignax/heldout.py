"""What a run measures on held-out rows, now and then and at its end."""

import math

import jax
import numpy as np

from alignax import data, lora_roles, metrics, reading, sharding
from alignax.evals import samples as samples_eval

EVALS = 2  # Stream of the seed; the training loop has another.


def make_evaluation(config, algorithm, kw, roles, found, tokenizer, mesh,
                    workdir, scorer):  # fmt: skip
  """Makes `evaluate(step, params, frozen) -> {name: number}`."""
  whole = heldout_batch(config, found, mesh)
  on_heldout = None
  if whole is not None and hasattr(algorithm, 'make_eval'):
    rows = jax.tree.leaves(whole)[0].shape[0]
    parts = rows // math.gcd(rows, config.data.batch_size)
    given = {k: v for k, v in kw.items() if k != 'microbatches'}
    on_heldout = algorithm.make_eval(
      roles.models, **given, **lora_roles.join_kw(roles), microbatches=parts
    )
  key = jax.random.fold_in(jax.random.key(config.seed), EVALS)
  # Where nothing is held out, samples answer what is learned from.
  shown = found.batches.examples if found.heldout is None else found.heldout
  score_fn = scorer.score_fn(shown.rows, single=True)

  def evaluate(step, params, frozen):
    numbers = {}
    if on_heldout is not None:
      result = on_heldout(params, frozen, whole, key)
      numbers |= {f'heldout/{k}': float(v) for k, v in result.items()}
    if config.evals.samples:
      rows, scores = samples_eval.draw(
        roles.models, params, frozen, tokenizer, shown,
        number=config.evals.samples, seed=config.seed, **config.evals.sampling,
        scorer=config.evals.scorer, stop_ids=reading.stop_ids(tokenizer),
        score_fn=score_fn, join=roles.join,
      )  # fmt: skip
      metrics.append_samples(workdir, [{'step': step, **r} for r in rows])
      numbers |= {f'samples/{k}': v for k, v in scores.items()}
    return numbers

  return evaluate


def heldout_batch(config, found, mesh):
  """The whole held-out set as one batch, padded with empty rows."""
  if found.heldout is None or found.batches.kind == 'prompts':
    return None
  rows = math.prod(mesh.shape[axis] for axis in sharding.BATCH_AXES)
  size = math.lcm(config.data.batch_size, rows)
  batches = data.Batches(
    found.heldout,
    kind=found.batches.kind,
    length=config.data.length,
    batch_size=size,
    seed=0,
    packing=config.data.packing,
    mismatched=found.batches.mismatched,
    classes=found.batches.classes,
    shuffle=False,
    repeat=False,
    **reading.hosts(),
  )
  parts = [batches[i] for i in range(len(batches))]
  whole = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
  return sharding.shard_batch(mesh, whole)
