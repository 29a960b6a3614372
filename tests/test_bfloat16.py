"""Training that computes in bfloat16 and keeps its weights in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny_worlds as worlds

from alignax import train
from alignax.algorithms import sft

KEY = jax.random.key(0)


def steps(dtype, number=8, rate=3e-3):
  """The state after some steps on one batch, and the losses."""
  model = worlds.make_model(dtype=dtype)
  tx = optax.adam(rate)
  state = train.init_state({'policy': worlds.make_params(model, 0)}, tx)
  step, found = sft.make_step({'policy': model}, tx), []
  for _ in range(number):
    state, metrics = step(state, {}, worlds.text(seed=0), KEY)
    found.append(metrics['loss'])
  return state, jnp.stack(found)


def test_weights_and_optimiser_stay_in_float32():
  state, losses = steps('bfloat16', number=1)
  leaves = jax.tree.leaves((state.params, state.opt_state))
  floats = {x.dtype for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)}
  assert floats == {jnp.dtype('float32')} and losses.dtype == jnp.float32


def test_it_computes_in_bfloat16_and_learns_alike():
  _, low = steps('bfloat16')
  _, full = steps('float32')
  assert not np.array_equal(low, full)  # It would be float32 after all.
  np.testing.assert_allclose(low, full, rtol=0.02)
  assert low[-1] < low[0] - 0.05


def test_updates_below_the_precision_of_bfloat16_add_up():
  # Around 1, bfloat16 has steps of 2**-8: a rate of 1e-4 would be lost in it.
  state, _ = steps('bfloat16', number=8, rate=1e-4)
  model = worlds.make_model(dtype='bfloat16')
  moved = jax.tree.map(
    lambda new, old: float(jnp.max(jnp.abs(new - old))),
    state.params['policy'], worlds.make_params(model, 0),
  )  # fmt: skip
  assert all(0 < x < 2**-8 for x in jax.tree.leaves(moved))
