"""How sure a measured number is: 95 % intervals of means and rates."""

from typing import NamedTuple

import numpy as np

Z95 = 1.959963984540054  # Normal quantile of 97.5 %.
RESAMPLES = 2000


class Estimate(NamedTuple):
  """A mean with its 95 % interval, of n observations."""

  mean: float
  low: float
  high: float
  n: int


def estimate(values, weights=None, *, seed: int = 0) -> Estimate:
  """A mean and its interval: Wilson's where all values are 0 or 1.

  Other values, and weighted ones, are resampled.

  Args:
    values: one number an independent observation, [n].
    weights: what each counts, [n]; None counts all alike.
    seed: of the resampling.
  """
  values = np.asarray(values, np.float64)
  even = weights is None or np.ptp(weights) < 1e-6 * np.max(weights)
  if even and np.isin(values, (0.0, 1.0)).all():
    return wilson(values.sum(), len(values))
  return bootstrap(values, weights, seed=seed)


def wilson(successes: float, n: int) -> Estimate:
  """A rate and its score interval, which also holds near 0 and 1.

      (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)

  See Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953. Draws may
  count as half a success.
  """
  if n == 0:
    return Estimate(float('nan'), 0.0, 1.0, 0)
  p, z2 = successes / n, Z95**2 / n
  middle = p + z2 / 2
  spread = np.sqrt(z2 * (p * (1 - p) + z2 / 4))
  low, high = (middle - spread) / (1 + z2), (middle + spread) / (1 + z2)
  # Rounding must not leave p outside at 0 and 1.
  return Estimate(float(p), float(min(low, p)), float(max(high, p)), int(n))


def bootstrap(
  values, weights=None, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
  """A mean and its percentile interval over resampled observations.

  One observation tells nothing of its spread: its interval is not a number.
  """
  values = np.asarray(values, np.float64)
  weights = np.ones(len(values)) if weights is None else np.asarray(weights)
  n = len(values)
  if n == 0:
    return Estimate(float('nan'), float('nan'), float('nan'), 0)
  mean = float(np.average(values, weights=weights))
  if n == 1:
    return Estimate(mean, float('nan'), float('nan'), 1)
  rng = np.random.default_rng(seed)
  counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)  # [R, n]
  total = counts @ weights
  means = (counts @ (weights * values))[total > 0] / total[total > 0]
  low, high = np.quantile(means, (0.025, 0.975))
  return Estimate(mean, float(low), float(high), n)


def paired(values, baseline, *, seed: int = 0) -> Estimate:
  """The mean of what one is above the other, observation by observation."""
  values, baseline = np.asarray(values), np.asarray(baseline)
  if values.shape != baseline.shape:
    raise ValueError(
      f'Pairs need as many values ({values.shape}) as there are in the '
      f'baseline ({baseline.shape}).'
    )
  return bootstrap(values - baseline, seed=seed)
