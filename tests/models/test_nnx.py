"""A Flax NNX model as a policy: two lines, no adapter classes of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from alignax import losses, token_logps


class Tiny(nnx.Module):
  """Somebody else's language model: tokens [B, T] to logits [B, T, V]."""

  def __init__(self, rngs: nnx.Rngs):
    self.embed = nnx.Embed(16, 8, rngs=rngs)
    self.mlp = nnx.Linear(8, 16, rngs=rngs)

  def __call__(self, inputs):
    return self.mlp(nnx.relu(self.embed(inputs)))


def pairs() -> dict:
  inputs = np.random.default_rng(0).integers(1, 16, (2, 2, 6))
  mask = np.ones((2, 2, 6), bool)
  mask[..., -1] = False
  return dict(inputs=inputs, targets=np.roll(inputs, -1, -1), mask=mask)


def test_dpo_on_an_nnx_model():
  graphdef, params = nnx.split(Tiny(nnx.Rngs(0)))
  policy = lambda params, inputs: nnx.merge(graphdef, params)(inputs)

  def sequence_logps(params, batch):
    logps = token_logps(policy(params, batch['inputs']), batch['targets'])
    return jnp.sum(logps, axis=-1, where=batch['mask'])

  def loss_fn(params, frozen, batch):
    logps = sequence_logps(params, batch)
    ref = sequence_logps(frozen, batch)
    loss, _ = losses.dpo_loss(logps[:, 0], logps[:, 1], ref[:, 0], ref[:, 1])
    return loss.mean()

  tx = optax.sgd(1.0)

  @jax.jit
  def step(params, opt_state, frozen, batch):
    loss, grads = jax.value_and_grad(loss_fn)(params, frozen, batch)
    updates, opt_state = tx.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, loss

  frozen, opt_state, seen = params, tx.init(params), []
  for _ in range(5):
    params, opt_state, loss = step(params, opt_state, frozen, pairs())
    seen.append(float(loss))
  np.testing.assert_allclose(seen[0], np.log(2), rtol=1e-6)
  assert seen == sorted(seen, reverse=True) and seen[-1] < seen[0]


class Policy:
  """The same model where an algorithm asks for `logps`."""

  def __init__(self, graphdef):
    self.graphdef = graphdef

  def head_stats(self, params, batch, **kw):
    from alignax import fused_head

    model = nnx.merge(self.graphdef, params)
    hidden = nnx.relu(model.embed(batch['inputs']))
    # The fused head takes [V, D]; this model has a bias, so it is added as
    # one more input that is always 1.
    ones = jnp.ones((*hidden.shape[:-1], 1))
    hidden = jnp.concatenate([hidden, ones], axis=-1)
    weight = jnp.vstack([model.mlp.kernel[...], model.mlp.bias[...]]).T
    return fused_head.head_stats(
      hidden, weight, batch['targets'], batch['mask'], **kw
    )

  def logps(self, params, batch, **kw):
    return self.head_stats(params, batch, **kw).logps


def test_the_fused_head_on_an_nnx_model():
  graphdef, params = nnx.split(Tiny(nnx.Rngs(0)))
  batch = pairs()
  logits = nnx.merge(graphdef, params)(batch['inputs'])
  expected = jnp.where(batch['mask'], token_logps(logits, batch['targets']), 0)
  found = Policy(graphdef).logps(params, batch)
  np.testing.assert_allclose(found, expected, atol=1e-5)
