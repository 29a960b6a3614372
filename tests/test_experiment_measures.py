"""What the experiments measure of their runs is what they say."""

import itertools

import numpy as np
import pytest

from alignax.cli import configs
from alignax.sweeps import plan
from experiments import figures
from experiments.length_bias import measure as length_bias
from experiments.overoptimization import measure as overoptimization


def test_experiments_share_their_stages():
  find = lambda name: {
    run.id
    for run in plan.make_plan(
      plan.load_sweep(f'experiments/{name}/sweep.py'), configs.load
    )
  }
  assert find('diversity') <= find('on_policy_data')
  assert len(find('preference_losses') & find('length_bias')) > 5


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


@pytest.mark.parametrize(
  'form', [overoptimization.squared, overoptimization.logarithmic]
)
def test_a_curve_is_recovered(form):
  d = np.linspace(0, 2, 9)
  gold = form(d) @ np.array([0.4, 0.1])
  found, error, share = overoptimization.fit(np.stack([d**2, gold]), form)
  np.testing.assert_allclose(found, [0.4, 0.1], atol=1e-9)
  assert error < 1e-9
  assert share == pytest.approx(1.0)


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


def test_cells():
  assert figures.cell([]) == '–'
  assert figures.cell([0.5]) == '0.5'
  assert figures.cell([0.4, 0.4]) == '0.4 [0.4, 0.4]'
