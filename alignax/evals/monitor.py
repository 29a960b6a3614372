"""Reward hacking: the proxy keeps rising while a held-out judge says otherwise.

Gao et al. 2023 (https://arxiv.org/abs/2210.10760) show the shape of it: the
proxy that is trained on goes on rising, the gold score turns. Both are only
seen with noise, at a number of evaluations, so this is a test:

  Over the last `window` evaluations, straight lines are fitted to both, and
  over the last half and three quarters of as many, so that a fast fall is seen
  fast. A warning is given where, over any of the three, the proxy's slope is
  positive and the judge's negative, both at level α by one-sided t-tests, at
  `patience` evaluations in a row.

Noise is taken to last: that of an evaluation correlates with the next by ρ,
with the one after by ρ², and so on. Its size and ρ are estimated, by moments,
from what is left of a curve around lines through all windows of the run so far,
which gives the t-test its degrees of freedom as well. Few windows tell little
of ρ, and taken to be 0 by chance it makes false alarms: so it is estimated as
if two windows more had been seen, of ρ = 0.5. `docs/probes.md` has the rates of
false alarms on simulated curves.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

WINDOW, ALPHA, PATIENCE = 8, 0.01, 2


class Slope(NamedTuple):
  """A fitted slope an evaluation, its standard error, and p of it being ≤ 0."""

  value: float
  error: float
  p: float


class Verdict(NamedTuple):
  """What is to be said at the last evaluation.

  Attributes:
    proxy: its slope over the longest window that there is; None before.
    judge: the same.
    diverging: whether the test rejects, at this evaluation alone.
    warning: whether it did so `patience` times in a row.
  """

  proxy: Slope | None
  judge: Slope | None
  diverging: bool
  warning: bool


class Turn(NamedTuple):
  """Where a curve turns: the step, and the ends of its 95 % set."""

  step: float
  low: float
  high: float


def judge(
  proxy: Sequence[float],
  held_out: Sequence[float],
  *,
  window: int = WINDOW,
  alpha: float = ALPHA,
  patience: int = PATIENCE,
) -> Verdict:
  """What the evaluations so far say, the last of them being now.

  Args:
    proxy: what is trained on, at evaluations that are evenly apart.
    held_out: what is wanted, at each, by something that is not trained on.
      Evaluations at which one of the two is not finite are left out.
    window: evaluations over which slopes are fitted at most, 4 or more.
    alpha: level of each of the two tests, over each of the windows.
    patience: evaluations in a row at which both reject.
  """
  if window < 4:
    raise ValueError(f'window is {window}; a slope and its error need 4.')
  proxy, held_out = finite(proxy, held_out)
  windows = sorted({max(4, window * i // 4) for i in (2, 3, 4)})
  rejected, slopes = [], (None, None)
  for back in range(patience):
    end = len(proxy) - back
    found = [
      tuple(slope(y[:end], w) for y in (proxy, held_out))
      for w in windows
      if w <= end
    ]
    rejected.append(any(p.p < alpha and 1 - h.p < alpha for p, h in found))
    if found and not back:
      slopes = found[-1]
  return Verdict(*slopes, rejected[0], all(rejected))


def first_warning(
  proxy: Sequence[float], held_out: Sequence[float], **kw
) -> int | None:
  """Which evaluation of a whole run is the first with a warning, or None.

  Args: as for `judge`.
  """
  for end in range(1, len(proxy) + 1):
    if judge(proxy[:end], held_out[:end], **kw).warning:
      return end - 1
  return None


def finite(*curves: Sequence[float]) -> np.ndarray:
  """The curves at the points where all of them are finite."""
  found = np.asarray(curves, np.float64)
  return found[:, np.all(np.isfinite(found), axis=0)]


def slope(values, window: int) -> Slope:
  """The slope of the last values, by evaluation, and its error."""
  y = np.asarray(values, np.float64)
  x = np.arange(window) - (window - 1) / 2
  parts = [y[end - window : end] for end in range(len(y), window - 1, -window)]
  parts = np.stack(parts) - np.mean(parts, axis=1, keepdims=True)
  slopes = parts @ x / (x @ x)
  errors = parts - slopes[:, None] * x
  rho = lasting(errors)
  # What σ² = 1 and this ρ would make of the slope's variance, and of Σ errors².
  of_slope, of_errors, _ = moments(window)[int(round(rho / STEP))]
  sigma2 = np.sum(errors**2) / (len(parts) * of_errors)
  error = float(np.sqrt(sigma2 * of_slope))
  value = float(slopes[0])
  if value == 0:
    return Slope(value, error, 0.5)
  # A line without noise has no error to divide by.
  t = value / error if error > 0 else np.copysign(np.inf, value)
  p = float(special.stdtr(len(parts) * (window - 2), -t))  # P(T > t).
  return Slope(value, error, p)


STEP = 0.05  # Between two values of ρ that are told apart.
PRIOR, WORTH = 0.5, 2  # What ρ is taken for, and by how many windows.


def lasting(errors) -> float:
  """ρ for which Σ eᵢ eᵢ₊₁ / Σ eᵢ² is as it is; of windows, [N, window]."""
  expected = np.array([ratio for *_, ratio in moments(errors.shape[1])])
  prior = expected[round(PRIOR / STEP)]
  squares = np.sum(errors**2)
  found = np.sum(errors[:, 1:] * errors[:, :-1]) / squares if squares else prior
  found = (len(errors) * found + WORTH * prior) / (len(errors) + WORTH)
  return STEP * int(np.argmin(np.abs(expected - found)))


@functools.cache
def moments(window: int) -> tuple[tuple[float, float, float], ...]:
  """What noise of variance 1 does to a fitted line, for ρ = 0, 0.05, ... 0.9.

  Returns:
    For every ρ: the variance of the slope, the mean of Σ eᵢ² of what is left,
    and that of Σ eᵢ eᵢ₊₁ over it.
  """
  x = np.arange(window) - (window - 1) / 2
  design = np.stack([np.ones(window), x], axis=1)
  off_line = np.eye(window) - design @ np.linalg.pinv(design)
  apart = np.abs(np.subtract.outer(np.arange(window), np.arange(window)))
  lag = np.eye(window, k=1)
  found = []
  for rho in np.arange(0.0, 0.9 + STEP / 2, STEP):
    noise = rho**apart
    left = off_line @ noise @ off_line
    total = np.trace(left)
    slope_variance = x @ noise @ x / (x @ x) ** 2
    found.append((slope_variance, total, np.sum(left * lag) / total))
  return tuple(found)


def turn(
  steps: Sequence[float], values: Sequence[float], *, alpha: float = 0.05
) -> Turn | None:
  """Where a curve turns to falling; None where it does not.

  Two straight lines that meet are fitted by least squares, for every step at
  which they may meet. Where the first rises and the second falls (one-sided
  t-test at level `alpha`, of noise that is independent) they meet at the turn;
  where the first falls already, that is at the first step. The 95 % set holds
  those steps whose fit the F-test does not tell from the best (Feder 1975,
  https://doi.org/10.1214/aos/1176342999).
  """
  x, y = finite(steps, values)
  n = len(x)
  if n < 6:
    return None
  knots = x[1:-1]
  left, first, second = np.array([_two_lines(x, y, knot) for knot in knots]).T
  best = int(np.argmin(left))
  falls = special.stdtrit(n - 3, alpha)  # Of a t, at most.
  if first[best] < falls:
    start = float(x[0])
    return Turn(start, start, start)
  if not (first[best] > 0 and second[best] < falls):
    return None
  limit = left[best] * (1 + special.fdtri(1, n - 4, 0.95) / (n - 4))
  inside = knots[left <= limit]
  return Turn(float(knots[best]), float(inside.min()), float(inside.max()))


def _two_lines(x, y, knot) -> tuple[float, float, float]:
  """Sum of squares left by lines that meet at a knot, and t of their slopes."""
  n = len(x)
  before, after = np.minimum(x - knot, 0.0), np.maximum(x - knot, 0.0)
  design = np.stack([np.ones(n), before, after], axis=1)
  coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
  left = float(np.sum((y - design @ coefficients) ** 2))
  spread = np.diag(np.linalg.inv(design.T @ design))[1:]
  errors = np.sqrt(spread * max(left, 1e-24) / (n - 3))
  return (left, *(coefficients[1:] / errors))
