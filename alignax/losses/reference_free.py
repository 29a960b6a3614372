"""Losses on pairs of responses that need no reference model.

They have no term that keeps the chosen response likely: an algorithm adds
`nll_loss` of the chosen (or, in TPO, of a gold) response with weights of its
own. Most are of *mean* log-probs, sums divided by lengths.
"""

import jax

from alignax.losses.preference import smoothed_loss
from alignax.losses.reward import pair_metrics
from alignax.numerics import bounded_exp, choose, log1mexp, matched
from alignax.types import Array, Metrics


def cpo_loss(
  chosen_logps: Array,
  rejected_logps: Array,
  *,
  beta: float = 0.1,
  label_smoothing: float = 0.0,
  kind: str = 'sigmoid',
) -> tuple[Array, Metrics]:
  """Contrastive preference optimisation: DPO with a uniform reference.

    sigmoid   L = -(1 - ε) log σ(z) - ε log σ(-z)
    hinge     L = max(0, 1 - z)                        with   z = β (s⁺ - s⁻)

  CPO itself adds the negative log-likelihood of the chosen response.

  See Xu et al., section 3 (https://arxiv.org/abs/2401.08417).

  Args:
    chosen_logps: log-prob of the preferred response, summed over tokens, [B].
    rejected_logps: the same of the other response, [B].
    beta: scale of the margin.
    label_smoothing: ε, of the sigmoid only.
    kind: 'sigmoid' or 'hinge'.

  Returns:
    The loss and the metrics of every pair, all [B].
  """
  chosen, rejected = matched(
    chosen_logps=chosen_logps, rejected_logps=rejected_logps
  )
  margins = beta * (chosen - rejected)
  kinds = {
    'sigmoid': lambda: smoothed_loss(margins, label_smoothing),
    'hinge': lambda: jax.nn.relu(1 - margins),
  }
  loss = choose('kind of CPO loss', kind, kinds)()
  return loss, pair_metrics(beta * chosen, beta * rejected)


def simpo_loss(
  chosen_mean_logps: Array,
  rejected_mean_logps: Array,
  *,
  beta: float = 2.0,
  gamma: float = 0.5,
  label_smoothing: float = 0.0,
) -> tuple[Array, Metrics]:
  """SimPO: the margin of mean log-probs should exceed γ.

    L = -log σ(β (s̄⁺ - s̄⁻) - γ)

  γ is the margin itself, on the scale of β s̄; some report γ / β.

  See Meng et al., eq. 6 (https://arxiv.org/abs/2405.14734).

  Args:
    chosen_mean_logps: log-prob of the preferred response, mean over tokens,
      [B].
    rejected_mean_logps: the same of the other response, [B].
    beta: scale of the margin.
    gamma: the margin to reach.
    label_smoothing: as for `dpo_loss`.

  Returns:
    The loss and the metrics of every pair, all [B].
  """
  chosen, rejected = matched(
    chosen_mean_logps=chosen_mean_logps,
    rejected_mean_logps=rejected_mean_logps,
  )
  chosen, rejected = beta * chosen, beta * rejected
  loss = smoothed_loss(chosen - rejected - gamma, label_smoothing)
  return loss, pair_metrics(chosen, rejected)


def alphapo_loss(
  chosen_mean_logps: Array,
  rejected_mean_logps: Array,
  *,
  beta: float = 2.0,
  gamma: float = 0.5,
  alpha: float = 0.25,
) -> tuple[Array, Metrics]:
  """AlphaPO: SimPO with a reward of another shape.

    L = -log σ(β (r⁺ - r⁻) - γ)   with   r = (1 - e^{-α s̄}) / α

  With α → 0 it is `simpo_loss`. Exponents above 20 go on linearly.

  See Gupta et al. (https://arxiv.org/abs/2501.03884): the "α-parameter".

  Args:
    chosen_mean_logps, rejected_mean_logps, beta, gamma: as for `simpo_loss`.
    alpha: shape of the reward; positive punishes unlikely tokens more.

  Returns:
    As `simpo_loss`.
  """
  chosen, rejected = matched(
    chosen_mean_logps=chosen_mean_logps,
    rejected_mean_logps=rejected_mean_logps,
  )
  if alpha != 0:
    shaped = lambda s: (1 - bounded_exp(-alpha * s)) / alpha
    chosen, rejected = shaped(chosen), shaped(rejected)
  return simpo_loss(chosen, rejected, beta=beta, gamma=gamma)


def orpo_loss(
  chosen_mean_logps: Array,
  rejected_mean_logps: Array,
  *,
  beta: float = 0.1,
) -> tuple[Array, Metrics]:
  """The odds ratio term of ORPO.

    L = -β log σ(logit p̄⁺ - logit p̄⁻)   with   p̄ = e^s̄,  logit p = log(p/(1-p))

  ORPO itself adds the negative log-likelihood of the chosen response. Past
  s̄ = -1e-6 the logit follows its tangent.

  See Hong et al., eq. 6 and 7 (https://arxiv.org/abs/2403.07691), whose λ is β.

  Args:
    chosen_mean_logps, rejected_mean_logps: as for `simpo_loss`.
    beta: weight of the term.

  Returns:
    As `simpo_loss`; and the log-odds of both in the metrics.
  """
  chosen, rejected = matched(
    chosen_mean_logps=chosen_mean_logps,
    rejected_mean_logps=rejected_mean_logps,
  )
  log_odds = chosen - log1mexp(chosen) - (rejected - log1mexp(rejected))
  metrics = pair_metrics(beta * chosen, beta * rejected)
  metrics['orpo/log_odds_ratio'] = log_odds
  return -beta * jax.nn.log_sigmoid(log_odds), metrics


def tpo_loss(
  chosen_mean_logps: Array,
  rejected_mean_logps: Array,
  *,
  beta: float = 2.0,
  gamma: float = 0.5,
) -> tuple[Array, Metrics]:
  """The preference term of TPO-L, triple preference optimisation.

    L = -log σ(β (s̄⁺ - s̄⁻) - γ)

  It is SimPO's; what makes TPO is the negative log-likelihood of a third, gold
  response, which an algorithm adds. TPO without the L is `cpo_loss` and that.

  See Saeidi et al. (https://arxiv.org/abs/2405.16681).

  Args and returns: as for `simpo_loss`.
  """
  return simpo_loss(
    chosen_mean_logps, rejected_mean_logps, beta=beta, gamma=gamma
  )
