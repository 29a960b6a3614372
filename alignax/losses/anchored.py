"""Losses on pairs that see each log-ratio apart, not only their difference.

`dpo_loss` is content when both responses become unlikely, as long as the margin
grows. These losses say what should become of each. Names as in `preference`:
a and b are the log-ratios of the chosen and the rejected response.
"""

import chex
import jax
import jax.numpy as jnp

from alignax.losses.preference import log_ratios, smoothed_loss
from alignax.losses.reward import pair_metrics
from alignax.numerics import as_bools
from alignax.types import Array, Metrics


def nca_pair_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
) -> tuple[Array, Metrics]:
  """Noise contrastive alignment, for a pair.

    L = -log σ(β a) - ½ log σ(-β a) - ½ log σ(-β b)

  See Chen et al., section 4.1 (https://arxiv.org/abs/2402.05369).

  Args and returns: as for `dpo_loss`.
  """
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  a, b = beta * a, beta * b
  pushed = 0.5 * (jax.nn.log_sigmoid(-a) + jax.nn.log_sigmoid(-b))
  return -jax.nn.log_sigmoid(a) - pushed, pair_metrics(a, b)


def bco_pair_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
) -> tuple[Array, Metrics]:
  """Binary classifier optimisation on pairs, without the shift δ.

    L = -log σ(β a) - log σ(-β b)

  It bounds `dpo_loss` from above; `bco_loss` has the shift.

  See Jung et al., section 4 (https://arxiv.org/abs/2404.04656).

  Args and returns: as for `dpo_loss`.
  """
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  a, b = beta * a, beta * b
  return -jax.nn.log_sigmoid(a) - jax.nn.log_sigmoid(-b), pair_metrics(a, b)


def sppo_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
) -> tuple[Array, Metrics]:
  """Self-play preference optimisation with hard labels.

    L = (a - 1 / (2β))² + (b + 1 / (2β))²

  the paper's loss at win probabilities 1 and 0 of the two responses.

  See Wu et al., eq. 4.7 (https://arxiv.org/abs/2405.00675), whose η is 1 / β.

  Args and returns: as for `dpo_loss`.
  """
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  goal = 1 / (2 * beta)
  return (a - goal) ** 2 + (b + goal) ** 2, pair_metrics(beta * a, beta * b)


def apo_zero_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
) -> tuple[Array, Metrics]:
  """Anchored preference optimisation: chosen up, rejected down.

    L = σ(-β a) + σ(β b)

  For chosen responses that are better than what the model would say.

  See D'Oosterlinck et al., eq. 7 (https://arxiv.org/abs/2408.06266).

  Args and returns: as for `dpo_loss`.
  """
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  a, b = beta * a, beta * b
  return jax.nn.sigmoid(-a) + jax.nn.sigmoid(b), pair_metrics(a, b)


def apo_down_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
) -> tuple[Array, Metrics]:
  """Anchored preference optimisation: both down, rejected further.

    L = σ(β a) + σ(-β (a - b))

  For chosen responses that are worse than what the model would say.

  See D'Oosterlinck et al., eq. 8 (https://arxiv.org/abs/2408.06266).

  Args and returns: as for `dpo_loss`.
  """
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  a, b = beta * a, beta * b
  return jax.nn.sigmoid(a) + jax.nn.sigmoid(b - a), pair_metrics(a, b)


def aot_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
  label_smoothing: float = 0.0,
  paired: bool = True,
  exists: Array | None = None,
) -> tuple[Array, Metrics]:
  """Alignment by optimal transport: whole distributions are compared.

    L = -(1 - ε) log σ(β D) - ε log σ(-β D)   with   D = sort(u) - sort(v)

  paired:    u = log π(y⁺) - log π(y⁻)    v = the same under the reference
  unpaired:  u = a                        v = b

  The k-th smallest u should exceed the k-th smallest v. So the loss of a pair
  *depends on the other pairs of the batch*: parts of a batch do not add up to
  the whole, and a larger batch is another loss.

  See Melnyk et al., section 3 (https://arxiv.org/abs/2406.05882).

  Args:
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta,
      label_smoothing: as for `dpo_loss`.
    paired: whether the responses of a pair answer the same prompt.
    exists: bool [B], False where there is no pair; those are left out.

  Returns:
    As `dpo_loss`. The loss at a pair is that of its u, whatever its rank.
  """
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  if paired:
    v = jnp.asarray(ref_chosen_logps) - jnp.asarray(ref_rejected_logps)
    v = jax.lax.stop_gradient(v.astype(a.dtype))
    u = a - b + v
  else:
    u, v = a, b
  if exists is None:
    exists = jnp.ones(u.shape, bool)
  chex.assert_equal_shape([u, exists])
  exists = as_bools('exists', exists)
  partner = jnp.where(exists, _of_equal_rank(u, v, exists), u)
  loss = smoothed_loss(beta * (u - partner), label_smoothing)
  return loss, pair_metrics(beta * a, beta * b)


def _of_equal_rank(u, v, exists):
  """For every entry of u, the entry of v that has the same rank."""
  last = lambda x: jnp.where(exists, x, jnp.inf).ravel()
  rank = jnp.argsort(jnp.argsort(last(jax.lax.stop_gradient(u))))
  return jnp.sort(last(v))[rank].reshape(u.shape)
