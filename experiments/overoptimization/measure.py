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
from experiments.overoptimization import fits
from experiments.overoptimization.sweep import PENALTIES, proxies

HERE = pathlib.Path(__file__).parent
PROMPTS, N = 128, 64
GOLD, PROXY, KL = 'probes/total', 'probes/reward', 'probes/kl_exact'
AGREES = 'heldout/rewards/accuracy'


def main(workdir: str):
  named = figures.groups(workdir, HERE)
  path = {name: runs[0].path for name, runs in named.items()}
  judges = {name: path[name] for name in proxies()}
  drawn, gold = best_of_n(path['sft'], judges)
  bon = {name: relative(*points) for name, points in drawn.items()}
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
  start = figures.curve(named['dpo on 4,000'], KL, GOLD)[1, 0]
  log = fits.logarithmic
  text = '\n\n'.join([
    f'The SFT model: {gold.mean():.3f} under best-of-N, {start:.3f} in the '
    f'runs; standard error of 256 responses {error_of_pairs(gold):.3f}.',
    '**Best-of-N**\n\n' + fits.table(bon, fits.squared),
    *(f'**PPO, KL x {p:g}**\n\n' + fits.table(rl[p], log) for p in rl),
    '**DPO**\n\n' + fits.table(dpo, log),
    '**The penalty, at the same KL**\n\n' + penalised(rl),
    '**The proxies**\n\n' + figures.of_metrics(
      {name: named[name] for name in judges},
      {'agrees with annotators, held out': AGREES},
    ),
  ])  # fmt: skip
  figures.save_table(HERE, text)
  draw('bon.png', bon, fits.squared, 'Best-of-N: gold score')
  for penalty, curves in rl.items():
    proxy = {
      name: relative(*figures.curve(named[f'ppo, KL x {penalty:g}, {name}'],
                                    KL, PROXY))
      for name in curves
    }  # fmt: skip
    title = f'PPO, KL penalty x {penalty:g}: gold (lines), proxy (dotted)'
    draw(f'ppo_{penalty:g}.png', curves, log, title, proxy)


def relative(kl, gold):
  """[2, n]: KL, and what is above the start."""
  kl, gold = np.asarray(kl), np.asarray(gold)
  return np.stack([np.maximum(kl, 0.0), gold - gold[0]])


def best_of_n(sft, judges):
  """By proxy: (KL, gold) of the best of 1, 2, 4, ...; gold of every draw.

  Every proxy judges the same draws.
  """
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
  return {
    name: (kl_of_best(numbers), [expected_best(gold, s, n) for n in numbers])
    for name, s in scores.items()
  }, gold


def kl_of_best(n):
  """KL of the best of n to one draw; less where draws repeat each other."""
  return np.log(n) - (n - 1) / n


def error_of_pairs(gold) -> float:
  """Of a mean over two draws for every prompt: gold scores, [prompts, draws].

  Prompts are taken to be drawn as well.
  """
  means = np.stack(np.split(gold, gold.shape[1] // 2, axis=1)).mean(axis=2)
  return float(np.mean(means.std(axis=1, ddof=1)) / np.sqrt(len(gold)))


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
      found, *_ = fits.fit(np.stack([kl, gold]), form)
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
