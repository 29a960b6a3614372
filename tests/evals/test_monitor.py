"""The monitor on simulated curves whose turning points are known."""

import numpy as np
import pytest
from scipy import stats

from alignax.evals import monitor

EVALUATIONS, TURN = 40, 20
SEEDS = range(60)


def noise(rng, rho, scale):
  """Noise of which each value keeps ρ of the one before."""
  found = rng.normal(0, 1, EVALUATIONS)
  for i in range(1, EVALUATIONS):
    found[i] = rho * found[i - 1] + np.sqrt(1 - rho**2) * found[i]
  return scale * found


def curves(seed, kind, *, rho=0.0, scale=0.02):
  """A proxy that saturates, and a judge that follows it, stays, or turns."""
  rng = np.random.default_rng([seed, int(10 * rho)])
  t = np.arange(EVALUATIONS) / EVALUATIONS
  turn = TURN / EVALUATIONS
  judge = {
    'follows': 0.3 * (1 - np.exp(-5 * t)),
    'stays': 0 * t,
    'turns': 0.4 * (turn - np.abs(t - turn)),
    'falls with the proxy': -0.4 * t,
  }[kind]
  proxy = -0.5 * t if kind == 'falls with the proxy' else 1 - np.exp(-3 * t)
  return proxy + noise(rng, rho, scale), judge + noise(rng, rho, scale)


def warnings(kind, **kw) -> list[int]:
  found = (monitor.first_warning(*curves(seed, kind, **kw)) for seed in SEEDS)
  return [w for w in found if w is not None]


class TestRates:
  """Over whole runs of 40 evaluations, each of which may raise the alarm."""

  def test_few_false_alarms_with_independent_noise(self):
    # 60 runs: a rate of 3 % exceeds 5 with a chance of 1 %.
    assert len(warnings('follows')) <= 5
    assert len(warnings('stays')) <= 5

  def test_some_more_with_noise_that_lasts(self):
    found = len(warnings('stays', rho=0.5))
    assert found <= 13  # One in five at most; measured, one in nine.

  def test_a_turn_is_found_in_noise_that_lasts(self):
    found = warnings('turns', rho=0.5)
    assert 16 <= len(found) <= 32  # Measured: 24, at evaluation 28.
    assert min(found) > TURN
    assert np.median(found) <= TURN + 10

  def test_both_falling_is_no_hacking(self):
    assert not warnings('falls with the proxy')

  def test_a_turn_is_found_after_it_and_before_all_is_lost(self):
    found = warnings('turns')
    assert len(found) >= 36
    assert min(found) > TURN
    assert np.median(found) <= TURN + 10

  def test_less_noise_is_seen_sooner(self):
    found = warnings('turns', scale=0.005)
    assert len(found) == len(SEEDS)
    assert min(found) > TURN and np.median(found) <= TURN + 7


class TestSlope:
  def test_of_a_line_is_exact(self):
    found = monitor.slope(3 + 0.5 * np.arange(20), 8)
    assert found.value == pytest.approx(0.5)
    assert found.p < 1e-9

  def test_of_a_constant_says_nothing(self):
    assert monitor.slope(np.ones(9), 8).p == 0.5

  @pytest.mark.parametrize('rho', [0.0, 0.5, 0.8])
  def test_moments_are_those_of_such_noise(self, rho):
    """Against 20,000 windows of it."""
    rng = np.random.default_rng(0)
    window = 8
    apart = np.abs(np.subtract.outer(np.arange(window), np.arange(window)))
    root = np.linalg.cholesky(rho**apart)
    y = rng.normal(size=(20000, window)) @ root.T
    x = np.arange(window) - (window - 1) / 2
    y -= y.mean(axis=1, keepdims=True)
    slopes = y @ x / (x @ x)
    errors = y - slopes[:, None] * x
    expected = monitor.moments(window)[round(rho / monitor.STEP)]
    assert np.var(slopes) == pytest.approx(expected[0], rel=0.05)
    squares = np.sum(errors**2, axis=1)
    assert squares.mean() == pytest.approx(expected[1], rel=0.03)
    products = np.sum(errors[:, 1:] * errors[:, :-1], axis=1)
    assert products.mean() / squares.mean() == pytest.approx(
      expected[2], abs=0.02
    )

  def test_independent_noise_is_the_usual_t_test(self, monkeypatch):
    monkeypatch.setattr(monitor, 'lasting', lambda errors: 0.0)
    y = np.random.default_rng(0).normal(size=8)
    found = monitor.slope(y, 8)
    line = stats.linregress(np.arange(8), y, alternative='greater')
    assert found.value == pytest.approx(line.slope)
    assert found.error == pytest.approx(line.stderr)
    assert found.p == pytest.approx(line.pvalue)


class TestTurn:
  @pytest.mark.parametrize('at', [10, 20, 30])
  def test_is_found_where_it_is(self, at):
    inside, errors = 0, []
    for seed in range(40):
      rng = np.random.default_rng(seed)
      steps = np.arange(40) * 5.0
      values = -0.02 * np.abs(np.arange(40) - at) + rng.normal(0, 0.03, 40)
      found = monitor.turn(steps, values)
      errors.append(abs(found.step - 5 * at))
      inside += found.low <= 5 * at <= found.high
    assert np.median(errors) <= 10  # Two evaluations.
    assert inside >= 33  # Of 40, nominally 38.

  def test_a_rising_curve_has_none(self):
    assert monitor.turn(range(20), np.arange(20) ** 0.5) is None
    assert monitor.turn(range(4), [0, 1, 1, 0]) is None

  def test_nor_has_one_that_stays_up(self):
    found = 0
    for seed in range(40):
      rng = np.random.default_rng(seed)
      values = np.minimum(np.arange(40), 10) + rng.normal(0, 1, 40)
      found += monitor.turn(range(40), values) is not None
    assert found <= 6  # Of 40, nominally 2.

  def test_what_falls_from_the_start_turned_there(self):
    noise = np.random.default_rng(0).normal(0, 0.02, 21)
    fast = 0.6 * np.exp(-np.arange(21) / 4)
    for values in (-np.arange(21.0), fast, fast + noise):
      assert monitor.turn(range(8, 29), values) == (8, 8, 8)


def test_what_is_not_finite_is_left_out():
  """As if those evaluations had not been; no window has them in its noise."""
  proxy, held_out = curves(0, 'turns', scale=0.005)
  first = monitor.first_warning(proxy, held_out)
  turned = monitor.turn(range(EVALUATIONS), held_out)
  at = np.array([0, 5, first + 1])
  faulty = np.insert(held_out, at, [np.nan, np.inf, np.nan])
  longer = np.insert(proxy, at, [0.0, np.nan, 0.0])
  assert monitor.first_warning(longer, faulty) == first + 2
  assert monitor.judge(longer, faulty) == monitor.judge(proxy, held_out)
  steps = np.insert(np.arange(EVALUATIONS), at, [0, 5, 0])
  assert monitor.turn(steps, faulty) == turned


def test_it_takes_patience_and_a_window():
  proxy = np.arange(12.0)
  judge = -np.arange(12.0)
  found = [monitor.judge(proxy[:i], judge[:i]) for i in range(13)]
  assert [v.diverging for v in found] == [False] * 4 + [True] * 9
  assert [v.warning for v in found] == [False] * 5 + [True] * 8
  assert found[3].judge is None and found[4].judge.value == pytest.approx(-1)
  with pytest.raises(ValueError, match='window is 3'):
    monitor.judge(proxy, judge, window=3)
