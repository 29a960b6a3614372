"""KL divergences between policies, estimated from samples or exact."""

import jax
import jax.numpy as jnp

from alignax.numerics import bounded_exp, choose, log_softmax, matched
from alignax.types import Array


def kl_estimate(
  logps: Array,
  ref_logps: Array,
  *,
  kind: str = 'k3',
  old_logps: Array | None = None,
) -> Array:
  """KL(π ‖ π_ref), estimated at tokens sampled from π.

    k1 = -x     k2 = x² / 2     k3 = eˣ - x - 1     with   x = log π_ref - log π

  As values, inside a reward: k1 and k3 have no bias, and k3 is never negative.
  As losses, differentiated: the gradient of k2 is on average that of the KL,
  that of k3 is the gradient of KL(π_ref ‖ π), and that of k1 is zero.

  See Schulman, "Approximating KL Divergence", for k1, k2 and k3
  (http://joschu.net/blog/kl-approx.html), and Shao et al., eq. 4, for k3 in a
  loss (https://arxiv.org/abs/2402.03300).

  Args:
    logps: log-probs of the sampled tokens under the policy, [...].
    ref_logps: the same under the reference; no gradient flows to it, [...].
    kind: 'k1', 'k2' or 'k3'.
    old_logps: under the policy that sampled, [...]. If given, the estimate is
      multiplied by the ratio π / π_old, which makes it unbiased off policy too.

  Returns:
    The estimate of every token, [...].
  """
  logps, ref_logps = matched(logps=logps, ref_logps=ref_logps)
  x = jax.lax.stop_gradient(ref_logps) - logps
  estimate = choose(
    'kind of KL estimate',
    kind,
    {
      'k1': lambda: -x,
      'k2': lambda: 0.5 * x**2,
      'k3': lambda: expm1_minus(x),
    },
  )()
  if old_logps is None:
    return estimate
  logps, old_logps = matched(logps, old_logps=old_logps)
  return estimate * bounded_exp(logps - jax.lax.stop_gradient(old_logps))


def exact_kl(logits: Array, ref_logits: Array) -> Array:
  """KL(π ‖ π_ref) of whole distributions over the next token.

    KL = Σ_v π(v) (log π(v) - log π_ref(v))

  No noise of sampling, at the price of both models' logits. No gradient flows
  to `ref_logits`. Where π rules a token out (-inf) it adds nothing; where only
  π_ref does, a number of some 1e30 stands for infinity.

  See Kullback and Leibler 1951 (https://doi.org/10.1214/aoms/1177729694).

  Args: logits, ref_logits: [..., V].
  Returns: [...].
  """
  logits, ref_logits = matched(logits=logits, ref_logits=ref_logits)
  ref_logps = log_softmax(jax.lax.stop_gradient(ref_logits))
  return kl_divergence(log_softmax(logits), ref_logps)


def kl_divergence(logps: Array, other_logps: Array) -> Array:
  """Σ_v p(v) (log p(v) - log q(v)). [..., V] -> [...]."""
  return jnp.sum(jnp.exp(logps) * (logps - other_logps), axis=-1)


def expm1_minus(x: Array) -> Array:
  """eˣ - 1 - x; `expm1` is exact near 0, where this is nearly 0 / 0."""
  near = jnp.clip(x, -1.0, 1.0)
  return jnp.where(
    jnp.abs(x) < 1.0, jnp.expm1(near) - near, bounded_exp(x) - 1 - x
  )
