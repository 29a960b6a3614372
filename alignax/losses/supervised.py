"""Losses on demonstrations, one entry for each token."""

import jax

from alignax.logps import logit_stats
from alignax.numerics import bounded_exp, log1mexp, matched
from alignax.types import Array, Metrics


def cross_entropy(
  logits: Array,
  targets: Array,
  *,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> tuple[Array, Metrics]:
  """Negative log-likelihood of the targets, from logits.

    L = log Σ_v e^{z_v} - z_y

  For a real vocabulary the logits are the largest array of the whole step:
  `nll_loss` on the results of `alignax.head_stats` is the same without them.

  See `nll_loss` for the terms of label smoothing and z-loss, and their papers.

  Args:
    logits: [..., V].
    targets: int [...].
    label_smoothing, z_loss: as for `nll_loss`.

  Returns:
    The loss and the metrics of every token, all [...].
  """
  stats = logit_stats(logits, targets)
  return nll_loss(
    stats.logps,
    mean_logps=stats.mean_logps,
    logz=stats.logz,
    label_smoothing=label_smoothing,
    z_loss=z_loss,
  )


def nll_loss(
  logps: Array,
  *,
  mean_logps: Array | None = None,
  logz: Array | None = None,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> tuple[Array, Metrics]:
  """Negative log-likelihood, from the log-probs of the targets.

    L = -(1 - ε) log p(y) - ε mean_v log p(v) + ζ (log Z)²

  See Szegedy et al., section 7 (https://arxiv.org/abs/1512.00567) for label
  smoothing, Chowdhery et al., section 5 (https://arxiv.org/abs/2204.02311) for
  the z-loss.

  Args:
    logps: log-probs of the targets, [...].
    mean_logps: mean over the vocabulary of all log-probs, [...]; needed for
      label smoothing.
    logz: log of the softmax's normaliser, [...]; needed for the z-loss.
    label_smoothing: ε, the probability spread evenly over the vocabulary.
    z_loss: ζ, holds log Z near zero, as bfloat16 logits like it (1e-4).

  Returns:
    The loss and the metrics of every token, all [...].

  Raises:
    ValueError: a term is asked for without what it is made of.
  """
  (logps,) = matched(logps=logps)
  loss = -(1 - label_smoothing) * logps
  if label_smoothing:
    loss -= label_smoothing * _needed('mean_logps', mean_logps, logps)
  if z_loss:
    loss += z_loss * _needed('logz', logz, logps) ** 2
  return loss, {'token/logps': logps}


def dft_loss(logps: Array) -> tuple[Array, Metrics]:
  """Dynamic fine-tuning: the log-likelihood, weighted by the probability.

    L = -sg(p) log p

  Plain SFT is a policy gradient whose reward is 1 / p, so that rare tokens get
  enormous weight; this takes the 1 / p out again.

  See Wu et al., section 3 (https://arxiv.org/abs/2508.05629).

  Args: logps, of the targets, [...].
  Returns: the loss and the metrics of every token, all [...].
  """
  (logps,) = matched(logps=logps)
  probability = jax.lax.stop_gradient(bounded_exp(logps))
  return -probability * logps, {'token/logps': logps}


def unlikelihood_loss(logps: Array) -> tuple[Array, Metrics]:
  """Pushes the probability of given tokens down.

    L = -log(1 - p)

  For tokens that should not have been said: repetitions, or responses that were
  marked as bad. Past log p = -1e-6 the loss follows its tangent.

  See Welleck et al. (https://arxiv.org/abs/1908.04319): the "token level"
  objective, of one candidate.

  Args: logps, of the unwanted tokens, [...].
  Returns: the loss and the metrics of every token, all [...].
  """
  (logps,) = matched(logps=logps)
  return -log1mexp(logps), {'token/logps': logps}


def _needed(name, x, like):
  if x is None:
    raise ValueError(
      f'{name} is missing: label smoothing needs `mean_logps` and the z-loss '
      'needs `logz`; `alignax.head_stats` gives both.'
    )
  return matched(like, **{name: x})[1]
