"""Best-of-N against every proxy, and Gao et al.'s curves fitted to all of it.

  python -m experiments.overoptimization.measure runs/experiments

Writes table.md and the figures beside this file. With d = √KL and R the gold
score above the SFT model's,

    best-of-N: R = d (a - b d)        RL: R = d (a - b log d)

(Gao et al. 2023, section 3.1, https://arxiv.org/abs/2210.10760), by least
squares on all points of a curve; KL of best-of-N is log N - (N - 1) / N.
"""

import pathlib
import sys

import jax
import numpy as np

from alignax import data, models
from alignax.cli import quickstart
from alignax.data import synthetic
from alignax.evals.samples import TOKENS
from experiments import figures
from experiments.overoptimization.sweep import PENALTIES, proxies

HERE = pathlib.Path(__file__).parent
PROMPTS, N = 128, 64
GOLD, PROXY, KL = 'probes/total', 'probes/reward', 'probes/kl_exact'


def main(workdir: str):
  named = figures.groups(workdir, HERE)
  path = {name: runs[0].path for name, runs in named.items()}
  bon = best_of_n(path['sft'], {name: path[name] for name in proxies()})
  rl = {
    penalty: {
      name: relative(*figures.curve(runs, KL, GOLD))
      for name in proxies()
      for runs in [named[f'ppo, KL x {penalty:g}, {name}']]
    }
    for penalty in PENALTIES
  }
  dpo = {
    name: relative(*figures.curve(runs, KL, GOLD))
    for name, runs in named.items()
    if name.startswith('dpo on')
  }
  text = '\n\n'.join([
    '**Best-of-N**\n\n' + fits(bon, squared),
    *(f'**PPO, KL x {p:g}**\n\n' + fits(rl[p], logarithmic) for p in rl),
    '**DPO**\n\n' + fits(dpo, logarithmic),
    '**The penalty, at the same KL**\n\n' + penalised(rl),
  ])  # fmt: skip
  figures.save_table(HERE, text)
  draw('bon.png', bon, squared, 'Best-of-N: gold score')
  for penalty, curves in rl.items():
    proxy = {
      name: relative(*figures.curve(named[f'ppo, KL x {penalty:g}, {name}'],
                                    KL, PROXY))
      for name in curves
    }  # fmt: skip
    title = f'PPO, KL penalty x {penalty:g}: gold (lines), proxy (dotted)'
    draw(f'ppo_{penalty:g}.png', curves, logarithmic, title, proxy)


def relative(kl, gold):
  """[2, n]: KL, and what is above the start."""
  kl, gold = np.asarray(kl), np.asarray(gold)
  return np.stack([np.maximum(kl, 0.0), gold - gold[0]])


def best_of_n(sft, judges) -> dict[str, np.ndarray]:
  """(KL, gold above the SFT model's) of the best of 1, 2, 4, ... by a proxy."""
  prompts = synthetic.rows('prompts', n=PROMPTS, seed=5, split='heldout')
  model, params = models.load(sft)
  tokenizer = data.load_tokenizer(sft)
  gold = np.zeros((PROMPTS, N))
  scores = {name: np.zeros((PROMPTS, N)) for name in judges}
  loaded = {}
  for name, path in judges.items():
    judge, weights = models.load(path)
    loaded[name] = jax.jit(judge.scores), weights
  for i in range(N):
    texts, rows = quickstart.draw(model, params, tokenizer, prompts, seed=i)
    gold[:, i] = [
      synthetic.gold_score(row, text)['total']
      for row, text in zip(prompts, texts)
    ]
    batch = {k: rows[k] for k in TOKENS}
    for name, (score, weights) in loaded.items():
      scores[name][:, i] = score(weights, batch)[..., 0]
  numbers = 2 ** np.arange(int(np.log2(N)) + 1)
  kl = np.log(numbers) - (numbers - 1) / numbers
  return {
    name: relative(kl, [expected_best(gold, s, n) for n in numbers])
    for name, s in scores.items()
  }


def expected_best(gold, scores, n: int) -> float:
  """Mean gold score of the best of n by `scores`, over all subsets of size n.

  The k-th best of N is the best of a subset with probability
  C(N - k, n - 1) / C(N, n): no draw is wasted.
  """
  total = scores.shape[1]
  order = np.argsort(-scores, axis=1, kind='stable')
  ranked = np.take_along_axis(gold, order, axis=1)
  share = np.zeros(total)
  left = n / total  # Of k = 0.
  for k in range(total - n + 1):
    share[k] = left
    left *= (total - k - n) / (total - k - 1) if k < total - 1 else 0.0
  return float(np.mean(ranked @ share))


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


def fits(curves, form) -> str:
  rows = []
  for name, points in curves.items():
    (a, b), error, share = fit(points, form)
    best = int(np.argmax(points[1]))
    rows.append([
      name, f'{a:.3f}', f'{b:.3f}', f'{error:.3f}', f'{share:.2f}',
      f'{points[1, best]:.3f} at {points[0, best]:.2f}',
      f'{points[1, -1]:.3f} at {points[0, -1]:.2f}',
    ])  # fmt: skip
  columns = ['run', 'a', 'b', 'error (rms)', 'R²', 'most gold, at KL',
             'last gold, at KL']  # fmt: skip
  return figures.table(columns, rows)


def penalised(rl) -> str:
  """Gold of PPO with the penalty, and of PPO without it on its way past there.

  From the fifth evaluation on, when a penalised run no longer moves away.
  """
  free, leashed = (rl[penalty] for penalty in PENALTIES)
  rows, above = [], []
  for name, points in leashed.items():
    kl, gold = points[:, 5:]
    far, worth = free[name][:, np.argsort(free[name][0])]
    without = np.interp(kl, far, worth)
    above.append(np.mean(gold - without))
    means = (np.mean(x) for x in (kl, gold, without))
    rows.append([name, *(f'{x:.3f}' for x in means), f'{above[-1]:+.3f}'])
  error = np.std(above, ddof=1) / np.sqrt(len(above))
  rows.append(['mean ± standard error', '', '', '',
               f'{np.mean(above):+.3f} ± {error:.3f}'])  # fmt: skip
  columns = ['run', 'KL', 'gold with', 'gold without', 'difference']
  return figures.table(columns, rows)


def draw(name, curves, form, title, proxy=None):
  """Measured points, and the fitted curve through them."""

  def fill(axes):
    for color, (label, (kl, gold)) in zip(figures.ORDER, curves.items()):
      d = np.linspace(0, np.sqrt(kl.max()), 60)
      (found, *_) = fit(np.stack([kl, gold]), form)
      axes.plot(d, form(d) @ found, color=color, label=label)
      axes.plot(np.sqrt(kl), gold, '.', color=color)
      if proxy:
        # In units of its own spread: proxies have no common scale.
        values = proxy[label][1]
        scaled = values / max(np.ptp(values), 1e-9) * max(np.ptp(gold), 0.1)
        axes.plot(np.sqrt(proxy[label][0]), scaled, ':', color=color, lw=1)

  figures.plot(
    HERE / name, fill, x='d = √KL (nats)', y='gold score above SFT',
    title=title, size=(7.2, 4.6),
  )  # fmt: skip


if __name__ == '__main__':
  main(sys.argv[1])
