"""What the experiments measure of their runs is what they say."""

import itertools
import math
import pathlib
import re
import types

import numpy as np
import pytest

from alignax.cli import configs
from alignax.data import synthetic
from alignax.sweeps import plan
from experiments import figures
from experiments.diversity import measure as diversity
from experiments.length_bias import measure as length_bias
from experiments.monitor import table as monitor
from experiments.on_policy_data import measure as on_policy
from experiments.overoptimization import fits
from experiments.overoptimization import measure as overoptimization
from experiments.preference_losses import measure as preference_losses
from experiments.where_sft_writes import measure as where_sft_writes

FOLDER = pathlib.Path(figures.__file__).parent


def run(seed: int = 0, **curves):
  """As `report` reads it: curves by metric, as {step: value}."""
  names = {name.replace('__', '/'): c for name, c in curves.items()}
  return types.SimpleNamespace(
    config={'seed': seed},
    curve=lambda metric: list(names.get(metric, {}).items()),
    last=lambda: {name: c[max(c)] for name, c in names.items()},
  )


def test_experiments_share_their_stages():
  find = lambda name: {
    run.id
    for run in plan.make_plan(
      plan.load_sweep(f'experiments/{name}/sweep.py'), configs.load
    )
  }
  assert find('diversity') <= find('on_policy_data')
  assert len(find('preference_losses') & find('length_bias')) > 5
  # Three seeds of DPO and PPO, which three pages ask three sets of prompts.
  both = find('diversity') & find('length_bias')
  assert sum(id.startswith(('dpo', 'ppo')) for id in both) == 6


def test_common_settings_are_runs_of_their_own():
  find = lambda file: {
    (run.name, run.id)
    for run in plan.make_plan(
      plan.load_sweep(f'experiments/preference_losses/{file}.py'), configs.load
    )
  }
  more = find('defaults') - find('sweep')
  assert len(more) == 2 * 5
  assert {name.split()[0] for name, _ in more} == {'apo_down', 'discopop'}


class TestBestOfN:
  rng = np.random.default_rng(0)
  gold = rng.normal(size=(3, 6))
  scores = rng.normal(size=(3, 6))

  @pytest.mark.parametrize('n', [1, 2, 5, 6])
  def test_is_the_mean_over_all_subsets(self, n):
    best = [
      row[max(subset, key=lambda i: judged[i])]
      for row, judged in zip(self.gold, self.scores)
      for subset in itertools.combinations(range(6), n)
    ]
    found = overoptimization.expected_best(self.gold, self.scores, n)
    assert found == pytest.approx(np.mean(best), abs=1e-12)

  def test_a_perfect_judge_finds_the_best(self):
    found = overoptimization.expected_best(self.gold, self.gold, 6)
    assert found == pytest.approx(self.gold.max(axis=1).mean())


@pytest.mark.parametrize('n', [2, 3, 8])
def test_kl_of_the_best_is_that_of_its_distribution(n):
  # Of ranks in a million draws that do not tie: Σ p log(p / (1 / total)).
  total = 10**6
  rank = (np.arange(total) + 0.5) / total
  p = n * rank ** (n - 1) / total
  kl = np.sum(p * np.log(p * total))
  assert overoptimization.kl_of_best(n) == pytest.approx(kl, abs=1e-4)
  assert overoptimization.kl_of_best(1) == 0


def test_error_of_a_mean_over_prompts():
  gold = np.random.default_rng(0).normal(size=(4000, 8))
  error = overoptimization.error_of_pairs(gold)
  assert error == pytest.approx(math.sqrt(1 / 2 / 4000), rel=0.03)
  same = np.repeat(gold[:, :1], 8, axis=1)  # All of it is between prompts.
  error = overoptimization.error_of_pairs(same)
  assert error == pytest.approx(math.sqrt(1 / 4000), rel=0.03)


def test_points_are_relative_to_the_start():
  points = overoptimization.relative([-0.1, 1.0], [0.6, 0.5])
  np.testing.assert_allclose(points, [[0.0, 1.0], [0.0, -0.1]], atol=1e-12)


def test_the_penalty_is_compared_at_the_same_kl():
  # Free runs lose 0.1 a nat, not in the order of KL; the leashed have 0.02
  # and 0.04 more than that where they end, and anything before.
  far = np.array([0.0, 3.0, 1.0, 2.0])
  free = np.stack([far, -0.1 * far])
  kl = np.array([0, 9, 9, 9, 9, 1.5, 2.5])
  leashed = lambda more: np.stack([
    kl, np.where(np.arange(7) < 5, 9.0, -0.1 * kl + more)
  ])  # fmt: skip
  out = overoptimization.penalised({
    0.0: {'a': free, 'b': free}, 0.1: {'a': leashed(0.02), 'b': leashed(0.04)}
  })  # fmt: skip
  assert '| a | 2.000 | -0.180 | -0.200 | +0.020 |' in out
  assert '| b | 2.000 | -0.160 | -0.200 | +0.040 |' in out
  assert '+0.030 ± 0.010' in out  # 0.01 √2 / √2: over n - 1.


@pytest.mark.parametrize('form', [fits.squared, fits.logarithmic])
class TestFit:
  d = np.linspace(0, 2, 9)

  def test_a_curve_is_recovered(self, form):
    gold = form(self.d) @ np.array([0.4, 0.1])
    points = np.stack([self.d**2, gold])
    found, error, share = fits.fit(points, form)
    np.testing.assert_allclose(found, [0.4, 0.1], atol=1e-9)
    assert error < 1e-9
    assert share == pytest.approx(1.0)
    sure = fits.intervals(points, form)
    np.testing.assert_allclose(sure, [[0.4] * 2, [0.1] * 2], atol=1e-9)

  def test_intervals_hold_the_truth_as_often_as_they_say(self, form):
    true = np.array([0.4, 0.1])
    rng = np.random.default_rng(0)
    held = []
    for i in range(200):
      gold = form(self.d) @ true + rng.normal(0, 0.05, size=9) * (self.d > 0)
      points = np.stack([self.d**2, gold])
      (low, high) = fits.intervals(points, form, seed=i).T
      held.append((low <= true) & (true <= high))
    assert np.all(np.abs(np.mean(held, axis=0) - 0.92) < 0.06)


def test_the_most_of_a_fit_is_on_the_curve():
  d = np.linspace(0, 2, 9)
  points = lambda a, b: np.stack([d**2, d * (a - b * d)])
  # d (a - b d) has a² / 4b; where a and b are below zero, the start is most.
  most = fits.highest(points(0.4, 0.2), fits.squared)
  assert most == pytest.approx(0.2, abs=1e-4)
  assert fits.highest(points(-0.4, 0.2), fits.squared) == pytest.approx(0)


class TestAboveDPO:
  # Of one model, from which every seed draws other responses.
  ends = lambda seed, kl, gold: run(
    seed, probes__kl_exact={0: 0.0, 8: kl},
    probes__total={0: (0.6, 0.5)[seed], 8: gold},
  )  # fmt: skip
  dpo = [
    [ends(0, 2.25, 0.7), ends(1, 2.25, 0.9)],
    [ends(1, 1.0, 0.8), ends(0, 1.0, 0.8)],
  ]

  def test_frontier_is_of_one_seed_from_its_own_start_on(self):
    known = preference_losses.frontier_of(self.dpo, 1)
    np.testing.assert_allclose(known, [(0, 0.5), (1, 0.8), (2.25, 0.9)])
    known = preference_losses.frontier_of(self.dpo, 0)
    np.testing.assert_allclose(known, [(0, 0.6), (1, 0.8), (2.25, 0.7)])

  def test_is_against_the_same_seed_at_the_same_kl(self):
    ends = TestAboveDPO.ends
    # In √KL half way from 1 to 1.5, and from 0 to 1: DPO has 0.85, and 0.7.
    runs = [ends(1, 1.5625, 0.87), ends(0, 0.25, 0.72)]
    out = preference_losses.above_dpo(runs, self.dpo)
    assert out == '+0.020 [+0.020, +0.020]'

  def test_a_method_on_the_same_concave_curve_is_not_above(self):
    curve = lambda seed, kl: (0.6, 0.5)[seed] + 0.15 * math.sqrt(kl)
    runs = lambda kl: [TestAboveDPO.ends(s, kl, curve(s, kl)) for s in (0, 1)]
    dpo = [runs(0.4), runs(1.2), runs(2.0)]
    for kl in (0.1, 0.7, 1.5):
      out = preference_losses.above_dpo(runs(kl), dpo)
      assert re.findall(r'[\d.]+', out) == ['0.000'] * 3

  def test_is_a_dash_beyond_where_dpo_came(self):
    ends = TestAboveDPO.ends
    runs = [ends(0, 0.5, 0.72), ends(1, 2.3, 0.9)]
    assert preference_losses.above_dpo(runs, self.dpo) == '–'


class TestBest:
  texts = [['a', 'b'], ['c', 'd'], ['e', 'f']]
  draw = lambda number: (
    TestBest.texts[number],
    {'lengths': np.array([number, 10 + number]),
     **dict.fromkeys(diversity.TOKENS, number)},
  )  # fmt: skip
  scores = [[1.0, 0.0], [3.0, 1.0], [2.0, 5.0]]

  def test_is_the_judges_row_by_row(self):
    judge = lambda rows: np.array(self.scores[next(iter(rows.values()))])
    found = diversity.best(TestBest.draw, range(3), judge)
    assert found == (['c', 'f'], [1, 12])

  def test_without_a_judge_is_the_first(self):
    texts, lengths = diversity.best(TestBest.draw, [1], None)
    assert texts == ['c', 'd'] and list(lengths) == [1, 11]


class TestWhereSFTWrites:
  def test_layers_are_in_the_order_of_numbers(self):
    changes = lambda k: {
      'probes__drift__layer_10': {0: 9.0, 8: 3.0 * k},
      'probes__drift__layer_09': {0: 9.0, 8: 2.0 * k},
      'probes__drift__all': {8: 7.0},
    }
    found = where_sft_writes.by_layer([run(**changes(1)), run(**changes(2))])
    np.testing.assert_allclose(found, [[2, 3], [4, 6]])

  def test_thirds_and_ends_of_a_real_model(self):
    change = np.array([1, 1, 2, 2, 4, 3]) / 1000
    row = where_sft_writes.of_real(change).splitlines()[-1]
    cells = '1.00 | 2.00 | 3.50 | 1.00 (layer 0) | 4.00 (layer 4)'
    assert row == f'| 6 layers | {cells} |'


def test_what_the_reward_model_gave_on_the_way():
  made = lambda seed, y: run(
    seed, probes__reward={0: 0.0, 20: y}, probes__total={0: 0.6, 20: 1 - y},
    probes__kl_exact={0: 0.0, 10: 9.0, 20: 1.0},
  )  # fmt: skip
  out = on_policy.judged({'own': [made(0, 0.4), made(1, 0.6)]})
  half = '0.5 [0.4, 0.6]'
  assert out.endswith(f'| own | 20 | 1 [1, 1] | {half} | {half} |')


class TestLengthControl:
  rng = np.random.default_rng(1)

  def test_length_alone_is_worth_nothing(self):
    longer = self.rng.normal(3, 4, size=4000)
    wins = 1 / (1 + np.exp(-2 * np.tanh(longer / longer.std())))
    assert wins.mean() > 0.6
    assert length_bias.controlled(wins, longer) == pytest.approx(0.5, abs=0.01)

  def test_equal_lengths_change_nothing(self):
    wins = self.rng.uniform(size=100)
    found = length_bias.controlled(wins, np.zeros(100))
    assert found == pytest.approx(wins.mean(), abs=1e-6)


class TestLengthBias:
  rows = synthetic.rows(
    'demonstrations', n=40, seed=9, split='heldout', quality='clean'
  )
  right = [row['reference'] for row in rows]

  def measure(self, own, base, bias=0.0):
    lengths = lambda texts: np.array([len(t.split()) for t in texts], float)
    pair = ((texts, lengths(texts)) for texts in (own, base))
    return length_bias.measure(*pair, self.rows, bias)

  def test_the_same_responses_win_half(self):
    found = self.measure(self.right, self.right, bias=0.4)
    for name, value in found.items():
      if 'win rate' in name or name == 'length-controlled':
        assert value == pytest.approx(0.5), name

  def test_right_ones_win(self):
    wrong = ['zebra ' * len(text.split()) for text in self.right]
    found = self.measure(self.right, wrong)
    assert found['correct'] == 1
    assert found['win rate, by gold'] == 1
    assert found['win rate, by these annotators'] > 0.9
    assert found['gold score'] > 0.9
    words = np.mean([len(text.split()) for text in self.right])
    assert found['tokens'] == words

  def test_a_bias_is_of_the_annotators_alone(self):
    wordy = [f'{text} zebra zebra zebra' for text in self.right]
    plain, biased = (self.measure(wordy, self.right, bias=b) for b in (0, 8.0))
    name = 'win rate, by these annotators'
    assert biased[name] > 0.9 > 0.1 > plain[name]
    assert biased['win rate, by gold'] == plain['win rate, by gold'] < 0.5


class TestAbove:
  own = [run(1, x={8: 0.5}), run(0, x={8: 0.3})]
  others = [run(0, x={8: 0.2}), run(1, x={8: 0.4})]

  def test_is_seed_by_seed(self):
    found = figures.above(self.own, self.others, 'x')
    assert found == '+0.100 [+0.100, +0.100]'
    out = figures.of_pairs({'a': self.others, 'b': self.own}, 'a', {'X': 'x'})
    assert out.splitlines()[-1] == '| b | +0.100 [+0.100, +0.100] |'
    assert len(out.splitlines()) == 3

  def test_other_seeds_are_an_error(self):
    with pytest.raises(ValueError, match=r'\[0, 1\] against \[0\]'):
      figures.above(self.own, self.others[:1], 'x')


def test_early_warnings_are_false_and_rates_have_intervals():
  # Seed, turn, warning, gold then, at the end and kept, rise of the proxy.
  late = 0, 8, 12, 0.4, 0.2, 0.6, 0.1
  early = 1, 8, 4, 0.5, 0.3, 0.5, 0.1
  quiet = 2, None, None, None, 0.7, 0.7, None
  cells = monitor.summary('x', [late, early, quiet])
  assert cells == [
    'x', '2 of 3', '1 of 2 [0.09, 0.91]', '4 updates', '0.40', '0.60', '0.20',
    '0.40', '1 of 2 [0.09, 0.91]',
  ]  # fmt: skip
  assert monitor.rate(0, 8) == '0 of 8 [0.00, 0.32]'
  assert monitor.rate(0, 0) == '0 of 0'


@pytest.mark.parametrize(
  'path', sorted(FOLDER.glob('*/table.md')), ids=lambda path: path.parent.name
)
def test_tables_are_on_their_pages(path):
  page = (path.parent / 'README.md').read_text().splitlines()
  assert [x for x in path.read_text().splitlines() if x not in page] == []


def test_figures_are_small():
  sizes = {path: path.stat().st_size for path in FOLDER.glob('*/*.png')}
  assert sizes
  assert [path for path, size in sizes.items() if size >= 200_000] == []


def test_cells():
  assert figures.cell([]) == '–'
  assert figures.cell([0.5]) == '0.5'
  assert figures.cell([0.4, 0.4]) == '0.4 [0.4, 0.4]'
