"""Losses on pairs of responses, against a frozen reference.

Every loss maps the log-probs of whole responses (sums over their tokens), one
entry for each pair, to one loss for each pair. Nothing is reduced; `weights`
says how pairs are averaged. With

    a = log π(y⁺) - log π_ref(y⁺)        b = log π(y⁻) - log π_ref(y⁻)

the implicit rewards are β a and β b. Called with *mean* log-probs instead of
sums, each loss is its own length-normalised form.
"""

import math

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
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  score = _divergence_score(divergence, alpha)
  loss = smoothed_loss(beta * (score(a) - score(b)), label_smoothing)
  return loss, pair_metrics(beta * a, beta * b)


def ipo_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
) -> tuple[Array, Metrics]:
  """Identity preference optimisation: a margin to reach, and not to exceed.

    L = (a - b - 1 / (2β))²

  This is the paper's form, on sums over tokens. Given mean log-probs it is the
  length-normalised form that some libraries have under the same name.

  See Azar et al., eq. 17 (https://arxiv.org/abs/2310.12036), whose τ is β.

  Args and returns: as for `dpo_loss`.
  """
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  return (a - b - 1 / (2 * beta)) ** 2, pair_metrics(beta * a, beta * b)


def hinge_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
) -> tuple[Array, Metrics]:
  """SLiC's calibration loss: pairs count until their margin is 1 / β.

    L = max(0, 1 - β (a - b))

  See Zhao et al., section 2 (https://arxiv.org/abs/2305.10425), and Liu et
  al. (https://arxiv.org/abs/2309.06657) for the reference.

  Args and returns: as for `dpo_loss`.
  """
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  return jax.nn.relu(1 - beta * (a - b)), pair_metrics(beta * a, beta * b)


def robust_dpo_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
  label_smoothing: float = 0.1,
) -> tuple[Array, Metrics]:
  """DPO, unbiased under labels that are flipped with probability ε.

    L = (-(1 - ε) log σ(z) + ε log σ(-z)) / (1 - 2ε)   with   z = β (a - b)

  On average over flips it is `dpo_loss` on the true labels. On a single pair it
  is unbounded below: β and the number of epochs have to hold it.

  See Chowdhury et al., section 3.1 (https://arxiv.org/abs/2403.00409).

  Args:
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta: as
      for `dpo_loss`.
    label_smoothing: ε, the share of flipped labels, in [0, 0.5).

  Returns:
    As `dpo_loss`.
  """
  _check_share('label_smoothing', label_smoothing, lowest_too=True)
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  z = beta * (a - b)
  loss = label_smoothing * jax.nn.log_sigmoid(-z)
  loss -= (1 - label_smoothing) * jax.nn.log_sigmoid(z)
  return loss / (1 - 2 * label_smoothing), pair_metrics(beta * a, beta * b)


def exo_pair_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
  label_smoothing: float = 1e-3,
) -> tuple[Array, Metrics]:
  """Efficient exact optimisation: DPO with the KL the other way round.

    L = σ(z) log(σ(z) / (1 - ε)) + σ(-z) log(σ(-z) / ε)   with   z = β (a - b)

  the KL from the policy's preference to the label's, which seeks its mode.

  See Ji et al., eq. 16 (https://arxiv.org/abs/2402.00856).

  Args:
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta: as
      for `dpo_loss`.
    label_smoothing: ε, in (0, 0.5): at 0 the KL is infinite.

  Returns:
    As `dpo_loss`.
  """
  _check_share('label_smoothing', label_smoothing, lowest_too=False)
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  z = beta * (a - b)
  right = jax.nn.log_sigmoid(z) - math.log(1 - label_smoothing)
  wrong = jax.nn.log_sigmoid(-z) - math.log(label_smoothing)
  loss = jax.nn.sigmoid(z) * right + jax.nn.sigmoid(-z) * wrong
  return loss, pair_metrics(beta * a, beta * b)


def discopop_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
  *,
  beta: float = 0.1,
  tau: float = 0.05,
) -> tuple[Array, Metrics]:
  """DiscoPOP: a loss that a language model proposed.

    L = -(1 - q) log σ(z) + q e⁻ᶻ   with   z = β (a - b),   q = σ(z / τ)

  It is not monotonic: around z = 0 it holds pairs where they are.

  See Lu et al., eq. 5 (https://arxiv.org/abs/2406.08414).

  Args:
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta: as
      for `dpo_loss`.
    tau: how sharply the two parts are told apart.

  Returns:
    As `dpo_loss`.
  """
  a, b = log_ratios(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
  )
  z = beta * (a - b)
  logistic = -jax.nn.sigmoid(-z / tau) * jax.nn.log_sigmoid(z)
  # q e⁻ᶻ as one exponential: far below 0 its factors are 0 and infinite.
  exponential = bounded_exp(jax.nn.log_sigmoid(z / tau) - z)
  return logistic + exponential, pair_metrics(beta * a, beta * b)


def smoothed_loss(margins: Array, label_smoothing: float) -> Array:
  """-(1 - ε) log σ(z) - ε log σ(-z), for ε in [0, 0.5)."""
  _check_share('label_smoothing', label_smoothing, lowest_too=True)
  loss = -(1 - label_smoothing) * jax.nn.log_sigmoid(margins)
  return loss - label_smoothing * jax.nn.log_sigmoid(-margins)


def log_ratios(
  chosen_logps: Array,
  rejected_logps: Array,
  ref_chosen_logps: Array,
  ref_rejected_logps: Array,
) -> tuple[Array, Array]:
  """a and b; no gradient flows to the reference."""
  chosen, rejected, ref_chosen, ref_rejected = matched(
    chosen_logps=chosen_logps,
    rejected_logps=rejected_logps,
    ref_chosen_logps=ref_chosen_logps,
    ref_rejected_logps=ref_rejected_logps,
  )
  ref_chosen, ref_rejected = jax.lax.stop_gradient((ref_chosen, ref_rejected))
  return chosen - ref_chosen, rejected - ref_rejected


def _check_share(name, value, *, lowest_too):
  if not (0 < value < 0.5 or (lowest_too and value == 0)):
    interval = '[0, 0.5)' if lowest_too else '(0, 0.5)'
    raise ValueError(f'{name} is {value}; it must be in {interval}.')


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
