"""Gao et al.'s curves, fitted by least squares; how sure their numbers are."""

import numpy as np

from experiments import figures

RESAMPLES = 2000


def squared(d):
  """R = d (a - b d): what a and b are multiplied with."""
  return np.stack([d, -(d**2)], axis=1)


def logarithmic(d):
  """R = d (a - b log d)."""
  return np.stack([d, -d * np.log(np.maximum(d, 1e-9))], axis=1)


def fit(points, form):
  """(a, b), the root mean squared error, and R²."""
  d, gold = np.sqrt(points[0]), points[1]
  found, *_ = np.linalg.lstsq(form(d), gold, rcond=None)
  left = gold - form(d) @ found
  share = 1 - np.sum(left**2) / np.sum((gold - gold.mean()) ** 2)
  return found, float(np.sqrt(np.mean(left**2))), float(share)


def intervals(points, form, *, seed: int = 0):
  """95 % intervals of a and b, [2, (low, high)], by resampled residuals.

  Residuals are centred and, two numbers being fitted, scaled by √(n / (n - 2)).
  The start is left out: every curve goes through it. What is resampled is the
  scatter about the curve, as if points were independent and the form right; a
  second run or other prompts would scatter more.
  """
  points = points[:, points[0] > 0]
  x, n = form(np.sqrt(points[0])), points.shape[1]
  solve = np.linalg.pinv(x)
  found = solve @ points[1]
  left = points[1] - x @ found
  left = (left - left.mean()) * np.sqrt(n / (n - 2))
  drawn = np.random.default_rng(seed).choice(left, (RESAMPLES, n))
  again = (x @ found + drawn) @ solve.T
  return np.quantile(again, (0.025, 0.975), axis=0).T


def highest(points, form) -> float:
  """The most gold that the fitted curve has, from the start to the last KL."""
  d = np.linspace(0, np.sqrt(points[0].max()), 1000)
  found, *_ = fit(points, form)
  return float(np.max(form(d) @ found))


def table(curves, form) -> str:
  """Markdown, of points [2, n] (KL, gold above the start) by name."""
  rows = []
  for name, points in curves.items():
    found, error, share = fit(points, form)
    best = int(np.argmax(points[1]))
    rows.append([
      name,
      *(f'{x:.3f} [{low:.3f}, {high:.3f}]'
        for x, (low, high) in zip(found, intervals(points, form))),
      f'{error:.3f}', f'{share:.2f}',
      f'{points[1, best]:.3f} at {points[0, best]:.2f}',
      f'{highest(points, form):.3f}',
      f'{points[1, -1]:.3f} at {points[0, -1]:.2f}',
    ])  # fmt: skip
  columns = ['run', 'a', 'b', 'error (rms)', 'R²', 'most gold, at KL',
             'most of the fit', 'last gold, at KL']  # fmt: skip
  return figures.table(columns, rows)
