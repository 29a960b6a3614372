"""One token a row: from logits to what is drawn, and how likely it was."""

import jax
import jax.numpy as jnp

from alignax.sampling import filters
from alignax.sampling.settings import Sampling
from alignax.types import Array


def draw_tokens(
  keys: Array, logits: Array, seen: Array, step: Array, sampling: Sampling
) -> tuple[Array, Array, Array]:
  """One token a row, its log-prob and its log-prob after filtering.

  keys [B], logits [B, V], seen [B, V], step [] -> three [B].
  """
  is_greedy = sampling.temperature == 0
  logits = logits / sampling.logp_temperature
  allowed = jax.lax.cond(
    sampling.repetition_penalty != 1,
    filters.penalise_repeats,
    lambda logits, *_: logits,
    *(logits, seen, sampling.repetition_penalty),
  )
  too_early = step < sampling.min_new_tokens
  allowed = filters.forbid(allowed, sampling.stop_ids, too_early)
  allowed = filters.filter_logits(allowed, sampling)

  def perturbed():
    # Adding Gumbel noise and taking the largest draws from the softmax.
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, allowed.shape[1:]))
    return _argmax(allowed + noise(step_keys))

  tokens = jax.lax.cond(is_greedy, lambda: _argmax(allowed), perturbed)
  sampler_logps = jnp.where(is_greedy, 0.0, _logps_of(allowed, tokens))
  return tokens, _logps_of(logits, tokens), sampler_logps


def row_keys(key: Array, batch: int) -> Array:
  """A key for every row, [B], of one key or of keys that are there already."""
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.wrap_key_data(key)
  if key.shape == (batch,):
    return key
  if key.shape != ():
    raise ValueError(
      f'key has shape {key.shape}; expected one key, [], or one for each of '
      f'the {batch} prompts, [{batch}].'
    )
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))


def _argmax(x: Array) -> Array:
  """Index of the first largest entry. [B, V] -> [B].

  Two plain reductions: XLA on CPU makes a scalar loop of `argmax`, with the
  noise inside, and takes three times as long for a draw.
  """
  is_largest = x == jnp.max(x, axis=-1, keepdims=True)
  index = jnp.where(is_largest, jnp.arange(x.shape[-1]), x.shape[-1] - 1)
  return jnp.min(index, axis=-1).astype(jnp.int32)


def _logps_of(logits: Array, tokens: Array) -> Array:
  """log softmax(logits)[token]. [B, V], [B] -> [B]."""
  chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
  return chosen - jax.nn.logsumexp(logits, axis=-1)
