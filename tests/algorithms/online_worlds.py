"""What tests of online algorithms share: scores, and steps on tables."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import toy_models as toys

from alignax import train

KEY = jax.random.key(0)
MODEL = toys.Bigram()
GOOD = 4  # The token that is worth something.


def good_tokens(frozen, rows):
  """The share of a response that is the good token."""
  good = np.sum((rows['targets'] == GOOD) & rows['mask'], axis=1)
  return (good / np.asarray(rows['lengths'])).astype(np.float32), {}


def constant(frozen, rows):
  return np.ones(len(rows['lengths']), np.float32), {}


def keeping(score_fn, kept):
  """The same, and the rows it saw."""

  def score(frozen, rows):
    kept.append(jax.device_get(rows))
    return score_fn(frozen, rows)

  return score


def build(algorithm, tx=None, *, policy=None, ref=None, score_fn=good_tokens,
          **kw):  # fmt: skip
  """(step, state, frozen) of an algorithm on tables."""
  tx = tx or optax.adam(0.1)
  kw = dict(score_fn=score_fn) | kw
  policy = policy or toys.table(0)
  params = {'policy': jax.tree.map(jnp.array, policy)}
  extra = {}
  if hasattr(algorithm, 'init_extra'):
    extra = algorithm.init_extra(params=params, **kw)
  state = train.init_state(params, tx, extra=extra)
  _, frozen = algorithm.roles(**kw)
  step = algorithm.make_step({'policy': MODEL}, tx, **kw)
  return step, state, {'ref': ref or policy} if 'ref' in frozen else {}


def run(algorithm, steps=1, *, batch=None, **kw):
  """The last state and the metrics of every step."""
  step, state, frozen = build(algorithm, **kw)
  rows = []
  for i in range(steps):
    prompts = batch or toys.prompts(16, seed=i)
    state, metrics = step(state, frozen, prompts, KEY)
    rows.append({k: float(v) for k, v in metrics.items()})
  return state, rows


def table_of(state):
  """The policy's logits."""
  return np.asarray(state.params['policy']['embed']['embedding'])


def logps_of(rows):
  """table -> log-probs of rows."""
  return lambda table: MODEL.logps({'embed': {'embedding': table}}, rows)


def one_update(algorithm, *, score_fn=good_tokens, rate=1.0, **kw):
  """How far plain descent moved the table, the rows it saw, and its metrics."""
  kept = []
  state, (metrics,) = run(
    algorithm,
    score_fn=keeping(score_fn, kept),
    tx=optax.sgd(rate),
    max_new_tokens=5,
    stop_ids=(0,),
    **kw,
  )
  start = toys.table(0)['embed']['embedding']
  return (start - table_of(state)) / rate, kept, metrics


def gradient(loss_of, rows, *, table=None):
  """Of a loss of the log-probs [B, T] of rows, as it is written by hand."""
  start = toys.table(0)['embed']['embedding'] if table is None else table
  return np.asarray(jax.grad(lambda x: loss_of(logps_of(rows)(x)))(start))
