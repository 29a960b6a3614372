"""Several updates from one rollout: epochs of shuffled minibatches."""

import jax
import jax.numpy as jnp

from alignax import train


def make_updates(loss_fn, tx, *, weigh, epochs=1, minibatches=1, stop_kl=0.0,
                 means=lambda metrics, weights: metrics, state_sharding=None,
                 **update_kw):  # fmt: skip
  """Makes a pure `updates(state, frozen, batch, key)`, not compiled.

  Args:
    loss_fn, tx, state_sharding, **update_kw: see `train.make_update`.
    weigh: minibatch -> weights by term; each minibatch has a mean of its own.
    epochs, minibatches: passes over the batch, and parts of a pass.
    stop_kl: what `policy/approx_kl` of a minibatch may be at most, for the
      ones after it to be learned from; 0: anything.
    means: (metrics, weights) of a minibatch -> its metrics.

  Returns:
    The function; it maps to (state, metrics), metrics being scalars.
  """
  update = train.make_update(
    loss_fn, tx, state_sharding=state_sharding, **update_kw
  )

  def updates(state, frozen, batch, key):
    order_key, update_key = jax.random.split(key)

    def learn_from(state, part):
      weights = weigh(part)
      state, metrics = update(state, frozen, part, weights, update_key)
      return state, means(metrics, weights)

    parts = shuffled_parts(order_key, batch, epochs, minibatches)
    state, metrics = update_until(learn_from, state, parts, stop_kl)
    if state_sharding is not None:
      # What holds inside of a loop does not hold for what leaves it: XLA chose
      # another place there, and the next step was compiled again.
      state = jax.lax.with_sharding_constraint(state, state_sharding)
    return state, metrics

  return updates


def shuffled_parts(key, batch, epochs, minibatches):
  """Every epoch's minibatches, rows drawn anew. -> [epochs * minibatches, ...].

  Rows of different arrays that belong together stay together: everything is
  permuted alike, but for the pretraining rows, which have their own number.
  """

  def epoch(key):
    def permute(x):
      order = jax.random.permutation(key, x.shape[0])
      return jnp.take(x, order, axis=0)

    return train.split(jax.tree.map(permute, batch), minibatches)

  if minibatches == 1:  # The order of rows does not matter.
    repeat = lambda x: jnp.broadcast_to(x, (epochs, *x.shape))
    return jax.tree.map(repeat, batch)
  parts = jax.vmap(epoch)(jax.random.split(key, epochs))
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)


def update_until(update, state, parts, stop_kl):
  """Updates part by part, until one has moved further than `stop_kl`.

  It stops on the device: no number goes to the host, none recompiles.
  Metrics are means over the updates that were made; how many were skipped in a
  row is as of the last of them.
  """

  def one(carry, part):
    state, stopped = carry
    if not stop_kl:  # No branch, which would have the state copied.
      state, metrics = update(state, part)
      return (state, stopped), (metrics, ~stopped)
    shapes = jax.eval_shape(update, state, part)[1]
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    state, metrics = jax.lax.cond(
      stopped,
      lambda state: (state, nothing),
      lambda state: update(state, part),
      state,
    )
    far = metrics['policy/approx_kl'] > stop_kl
    return (state, stopped | far), (metrics, ~stopped)

  start = (state, jnp.zeros((), bool))
  (state, _), (metrics, made) = jax.lax.scan(one, start, parts)
  count = jnp.sum(made)
  means = jax.tree.map(lambda x: jnp.sum(x) / count, metrics)
  for name in ('skipped_in_a_row', 'skipped_total'):  # Counts, no means.
    if name in metrics:
      means[name] = metrics[name][count - 1]
  return state, means | {'updates': count.astype(jnp.float32)}
