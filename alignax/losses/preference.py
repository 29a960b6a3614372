"""Losses on pairs of responses, against a frozen reference.

Every loss maps the log-probs of whole responses (sums over their tokens), one
entry for each pair, to one loss for each pair. Nothing is reduced; `weights`
says how pairs are averaged. With

    a = log π(y⁺) - log π_ref(y⁺)        b = log π(y⁻) - log π_ref(y⁻)

the implicit rewards are β a and β b. Called with *mean* log-probs instead of
sums, each loss is its own length-normalised form.
"""

import jax
import jax.numpy as jnp

from alignax.losses.reward import pair_metrics
from alignax.numerics import bounded_exp, choose, matched
from alignax.types import Array, Metrics


def dpo_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
  label_smoothing: float = 0.0,
  divergence: str = 'reverse_kl',
  alpha: float = 0.5,
) -> tuple[Array, Metrics]:
  """Direct preference optimisation.

    L = -(1 - ε) log σ(z) - ε log σ(-z)   with   z = β (f(a) - f(b))

  where f belongs to the divergence that holds the policy to the reference:

    reverse_kl         f(u) = u
    forward_kl         f(u) = 1 - e⁻ᵘ
    js_divergence      f(u) = log 2 + log σ(u)
    alpha_divergence   f(u) = (e⁽ᵅ⁻¹⁾ᵘ - 1) / (α - 1)

  A `label_smoothing` of ε trusts each label with probability 1 - ε only
  (conservative DPO). Exponents above 20 go on linearly.

  See Rafailov et al., eq. 7 (https://arxiv.org/abs/2305.18290); Mitchell
  (https://ericmitchell.ai/cdpo.pdf) for ε; Wang et al., table 1
  (https://arxiv.org/abs/2309.16240) for f.

  Args:
    chosen_logps: log-prob of the preferred response y⁺ under the policy, [B].
    rejected_logps: log-prob of the other response y⁻ under the policy, [B].
    ref_chosen_logps: as `chosen_logps`, under the frozen reference, [B].
    ref_rejected_logps: as `rejected_logps`, under the frozen reference, [B].
    beta: how strongly the policy is held to the reference.
    label_smoothing: assumed share of flipped labels, in [0, 0.5).
    divergence: one of the four above.
    alpha: of the alpha divergence; 1 is the reverse KL, 0 the forward KL.

  Returns:
    The loss of every pair and the metrics of every pair, all [B]. The rewards
    in the metrics are β a and β b whatever the divergence.
  """
  a, b = _log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  score = _divergence_score(divergence, alpha)
  loss = smoothed_loss(beta * (score(a) - score(b)), label_smoothing)
  return loss, pair_metrics(beta * a, beta * b)


def smoothed_loss(margins: Array, label_smoothing: float) -> Array:
  """-(1 - ε) log σ(z) - ε log σ(-z)."""
  loss = -(1 - label_smoothing) * jax.nn.log_sigmoid(margins)
  return loss - label_smoothing * jax.nn.log_sigmoid(-margins)


def _log_ratios(chosen, rejected, ref_chosen, ref_rejected):
  """a and b; no gradient flows to the reference."""
  chosen, rejected, ref_chosen, ref_rejected = matched(
    chosen, rejected, ref_chosen, ref_rejected
  )
  ref_chosen, ref_rejected = jax.lax.stop_gradient((ref_chosen, ref_rejected))
  return chosen - ref_chosen, rejected - ref_rejected


def _divergence_score(divergence, alpha):
  """f' of the f-divergence at the ratio eᵘ, up to a constant."""

  def alpha_score(u):
    if alpha == 1:
      return u
    return (bounded_exp((alpha - 1) * u) - 1) / (alpha - 1)

  return choose(
    'divergence',
    divergence,
    {
      'reverse_kl': lambda u: u,
      'forward_kl': lambda u: 1 - bounded_exp(-u),
      'js_divergence': lambda u: jnp.log(2.0) + jax.nn.log_sigmoid(u),
      'alpha_divergence': alpha_score,
    },
  )
