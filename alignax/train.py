"""The train step: the only place that reduces, differentiates and updates."""

from collections.abc import Callable
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax

from alignax.types import Array, Batch, Metrics, Params

# term -> (loss, metrics), all of one shape for each term; nothing reduced.
Terms = dict[str, tuple[Array, Metrics]]
LossFn = Callable[[Params, Params, Batch, Array], Terms]
Weigh = Callable[[Batch], dict[str, Array]]


# (params, frozen) -> the same with every role's own, whole parameters.
Join = Callable[[Params, Params], tuple[Params, Params]]


def separate(params: Params, frozen: Params) -> tuple[Params, Params]:
  """The `Join` of roles that share nothing."""
  return params, frozen


class TrainState(flax.struct.PyTreeNode):
  """All that a step updates, and all that a checkpoint holds.

  Attributes:
    step: number of updates tried, skipped ones included, [].
    params: trained parameters by role.
    opt_state: of the optimiser.
    ema: moving average of `params`, or None.
    extra: what an algorithm adapts by itself, such as a KL coefficient.
    skipped: updates skipped in a row for a loss or gradient not finite, [].
    skipped_total: the same since the start, [].
  """

  step: Array
  params: Params
  opt_state: optax.OptState
  ema: Params | None
  extra: Any
  skipped: Array
  skipped_total: Array


def init_state(
  params: Params,
  tx: optax.GradientTransformation,
  *,
  ema: bool = False,
  extra: Any = None,
) -> TrainState:
  """The state before the first step."""
  # One buffer each: a donated state may not hold the same buffer twice.
  zero = lambda: jnp.zeros((), jnp.int32)
  # No weak types: a step returns none, and would be compiled a second time.
  params = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), params)
  return TrainState(
    step=zero(),
    params=params,
    opt_state=tx.init(params),
    ema=jax.tree.map(jnp.copy, params) if ema else None,
    extra={} if extra is None else extra,
    skipped=zero(),
    skipped_total=zero(),
  )


def make_train_step(
  loss_fn: LossFn,
  tx: optax.GradientTransformation,
  *,
  weigh: Weigh,
  **update_kw,
):
  """Makes a compiled `step(state, frozen, batch, key) -> (state, metrics)`.

  The step donates `state`; `frozen` (reference or reward parameters) is only
  read. See `make_update` for the arguments.
  """
  update = make_update(loss_fn, tx, **update_kw)

  def step(state, frozen, batch, key):
    # Weights are of the whole batch: so its parts add up to exactly its loss.
    return update(state, frozen, batch, weigh(batch), key)

  return jax.jit(step, donate_argnums=0)


def make_update(
  loss_fn: LossFn,
  tx: optax.GradientTransformation,
  *,
  microbatches: int = 1,
  ema_decay: float = 0.0,
  axis_name: str | None = None,
  state_sharding: Any = None,
  join: Join = separate,
):
  """Makes a pure `update(state, frozen, batch, weights, key)`, not compiled.

  An update whose loss or gradient is not finite leaves parameters, their
  average and the optimiser as they were, and is counted.

  Args:
    loss_fn: maps (params, frozen, batch, key) to named terms; each is the loss
      of every token or example and metrics of the same shape, unreduced.
    tx: the optimiser.
    microbatches: number of parts in which the batch goes through the model.
    ema_decay: of the moving average, where the state has one.
    axis_name: a mapped axis (`pmap`, `shard_map`) over which to sum; None
      under `jit`, where arrays are global.
    state_sharding: where the new state lives; None leaves it to XLA.
    join: gives the loss every role's whole parameters, where roles share some
      of them (LoRA); gradients are of what is in `state` alone.

  Returns:
    The update; it maps to (state, metrics), metrics being scalars.
  """

  def weighted_loss(params, frozen, batch, weights, key):
    terms = loss_fn(*join(params, frozen), batch, key)
    return weighted_sum(terms, weights)

  grad_fn = jax.value_and_grad(weighted_loss, has_aux=True)

  def update(state, frozen, batch, weights, key):
    key = jax.random.fold_in(key, state.step)
    if axis_name is not None:
      key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))

    def part_gradients(part):
      batch, weights, key = part
      return grad_fn(state.params, frozen, batch, weights, key)

    parts = split((batch, weights), microbatches)
    keys = jax.random.split(key, microbatches)
    totals = sum_over(part_gradients, (*parts, keys))
    if axis_name is not None:
      totals = jax.lax.psum(totals, axis_name)
    (loss, metrics), grads = totals
    grad_norm = optax.tree.norm(grads)
    state, ok = apply_gradients(state, grads, loss, grad_norm, tx, ema_decay)
    if state_sharding is not None:
      state = jax.lax.with_sharding_constraint(state, state_sharding)
    metrics |= {
      'loss': loss,
      'grad_norm': grad_norm,
      'skipped': 1.0 - ok,
      'skipped_in_a_row': state.skipped.astype(jnp.float32),
      'skipped_total': state.skipped_total.astype(jnp.float32),
    }
    return state, metrics

  return update


def make_eval(
  loss_fn: LossFn,
  *,
  weigh: Weigh,
  microbatches: int = 1,
  by_row: bool = False,
  join: Join = separate,
):
  """Makes a compiled `evaluate(params, frozen, batch, key) -> metrics`.

  The whole held-out set is one batch, read in parts: its metrics are exact
  weighted means, however the parts differ. With `by_row` they are [B], what
  every row adds to the mean, and 'weight' is the row's share of the weights:
  what an interval is made from. `join` as for `make_update`.
  """

  def evaluate(params, frozen, batch, key):
    params, frozen = join(params, frozen)

    def part_metrics(part):
      batch, weights, key = part
      terms = loss_fn(params, frozen, batch, key)
      loss, metrics = weighted_sum(terms, weights, by_row=by_row)
      metrics |= {'loss': loss}
      if by_row:
        metrics['weight'] = sum(map(sum_rows, weights.values()))
      return metrics

    parts = split((batch, weigh(batch)), microbatches)
    keys = jax.random.split(key, microbatches)
    if by_row:
      metrics = jax.lax.map(part_metrics, (*parts, keys))  # [n, B / n]
      return jax.tree.map(lambda x: x.T.reshape(-1), metrics)  # As dealt out.
    return sum_over(part_metrics, (*parts, keys))

  return jax.jit(evaluate)


def sum_rows(x: Array) -> Array:
  """[B, ...] -> [B]."""
  return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def weighted_sum(
  terms: Terms, weights: dict[str, Array], *, by_row: bool = False
) -> tuple[Array, Metrics]:
  """The sum of all terms, and the weighted mean of every metric.

  With `by_row`, what each row adds to them, [B].
  """
  add_up = sum_rows if by_row else jnp.sum
  # Entries of weight zero may hold anything, even what is not finite.
  weigh = lambda x, weight: add_up(
    jnp.where(weight > 0, weight * x.astype(jnp.float32), 0.0)
  )
  if terms.keys() != weights.keys():
    raise ValueError(
      f'The loss has terms {sorted(terms)}, its weights {sorted(weights)}.'
    )
  total, metrics = jnp.zeros(()), {}
  for name, (loss, term_metrics) in terms.items():
    weight = weights[name]
    chex.assert_equal_shape([loss, weight, *term_metrics.values()])
    term_loss = weigh(loss, weight)
    total += term_loss
    metrics |= {k: weigh(v, weight) for k, v in term_metrics.items()}
    if len(terms) > 1:
      metrics[f'loss/{name}'] = term_loss
  return total, metrics


def apply_gradients(
  state: TrainState, grads, loss, grad_norm, tx, ema_decay
) -> tuple[TrainState, Array]:
  """The next state, and whether the update was finite (else: skipped)."""
  ok = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  # `where` after the update, not a `cond` around it: it fuses, and under a
  # mesh no device takes another branch.
  keep = lambda new, old: jnp.where(ok, new, old)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  params = jax.tree.map(keep, params, state.params)
  ema = state.ema
  if ema is not None:
    ema = optax.incremental_update(params, ema, 1.0 - ema_decay)
    ema = jax.tree.map(keep, ema, state.ema)
  bad = (~ok).astype(jnp.int32)
  state = state.replace(
    step=state.step + 1,
    params=params,
    opt_state=jax.tree.map(keep, opt_state, state.opt_state),
    ema=ema,
    skipped=(state.skipped + 1) * bad,
    skipped_total=state.skipped_total + bad,
  )
  return state, ok.astype(jnp.float32)


def split(tree, n: int):
  """[B, ...] -> [n, B / n, ...], every row staying on its device.

  It deals rows out in turn, part i getting rows i, i + n, ...: sharded over
  devices, that moves nothing, while cutting the batch into runs of rows adds
  an all-gather.
  """

  def deal(x):
    if x.shape[0] % n:
      raise ValueError(
        f'A batch of {x.shape[0]} rows does not split into {n} microbatches.'
      )
    return x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1)

  return jax.tree.map(deal, tree)


def sum_over(fn, xs):
  """Sums `fn` over the leading axis of `xs`, holding one term at a time."""
  first = jax.tree.map(lambda x: x[0], xs)
  if jax.tree.leaves(xs)[0].shape[0] == 1:
    return fn(first)
  shapes = jax.eval_shape(fn, first)
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  add = lambda total, x: (jax.tree.map(jnp.add, total, fn(x)), None)
  total, _ = jax.lax.scan(add, zeros, xs)
  return total
