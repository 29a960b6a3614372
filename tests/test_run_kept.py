"""What a run keeps besides its last parameters, and that others can read it."""

import math

import jax
import numpy as np
import pytest
from small_runs import load, losses, train

from alignax import checkpoint, metrics, models, reading
from alignax.cli import eval as evaluation

DECAY = 0.5


def item(workdir, step, name):
  return checkpoint.load_item(workdir / 'checkpoints' / str(step), name)


def same(one, other):
  equal = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other)
  return all(jax.tree.leaves(equal))


@pytest.fixture(scope='module')
def averaged(home, tmp_path_factory):
  """SFT with a moving average; every checkpoint is kept."""
  workdir = tmp_path_factory.mktemp('averaged')
  given = {'ema_decay': DECAY, 'checkpoint.every': 1, 'checkpoint.keep': 9}
  train(home, 'sft', workdir, total_steps=2, **given)
  train(home, 'sft', workdir, total_steps=4, **given)
  return workdir


@pytest.mark.slow
class TestAverage:
  def test_it_follows_the_parameters_and_goes_on_after_a_stop(self, averaged):
    for step in (2, 3, 4):  # The run was stopped after the second.
      before = item(averaged, step - 1, 'ema_policy')
      params = item(averaged, step, 'params_policy')
      want = jax.tree.map(
        lambda old, new: DECAY * old + (1 - DECAY) * new, before, params
      )
      found = item(averaged, step, 'ema_policy')
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, want
      )

  def test_it_is_what_others_load(self, averaged):
    _, params = models.load(averaged)
    assert same(params, item(averaged, 4, 'ema_policy'))
    assert not same(params, item(averaged, 4, 'params_policy'))

  def test_it_is_what_is_evaluated(self, home, averaged):
    config = load(home, 'sft', total_steps=4, ema_decay=DECAY)
    step, found = evaluation.evaluate(config, averaged, 0)
    measured = losses(averaged, 'heldout/loss')[-1]
    assert step == 4
    assert found['heldout/loss'].mean == pytest.approx(measured, abs=1e-5)


@pytest.fixture(scope='module')
def rated(home, tmp_path_factory):
  """SFT of which the last and the worst checkpoint are kept."""
  workdir = tmp_path_factory.mktemp('rated')
  train(
    home, 'sft', workdir,
    **{
      'checkpoint.every': 1, 'checkpoint.keep': 1, 'checkpoint.keep_best': 1,
      'checkpoint.best_metric': 'heldout/loss', 'evals.every': 1,
    },
  )  # fmt: skip
  return workdir


@pytest.mark.slow
class TestBest:
  def test_it_is_kept_beside_the_last(self, rated):
    found = {path.name for path in (rated / 'checkpoints').glob('[0-9]*')}
    measured = losses(rated, 'heldout/loss')[1:]  # Step 0 is not saved.
    assert found == {'6', str(1 + int(np.argmax(measured)))}

  def test_a_checkpoint_is_named_by_its_directory(self, rated):
    (step,) = {p.name for p in (rated / 'checkpoints').glob('[0-5]')}
    path = rated / 'checkpoints' / step
    _, params = models.load(path)
    assert same(params, item(rated, step, 'params_policy'))
    assert not same(params, models.load(rated)[1])
    tokenizer = reading.tokenizer_of(str(path))
    assert tokenizer.get_vocab() == reading.tokenizer_of(str(rated)).get_vocab()

  def test_a_run_starts_from_it(self, home, rated, tmp_path):
    (step,) = {p.name for p in (rated / 'checkpoints').glob('[0-5]')}
    path = str(rated / 'checkpoints' / step)
    train(home, 'sft', tmp_path, init_from=path, total_steps=1)
    first = losses(tmp_path, 'heldout/loss')[0]
    want = losses(rated, 'heldout/loss')[int(step)]
    assert first == pytest.approx(want, abs=1e-6)


def test_what_is_not_finite_is_null_in_the_file_and_nan_when_read(tmp_path):
  writer = metrics.Writer(tmp_path, start=0, tensorboard=False)
  writer.line(1, {'loss': math.nan, 'grad_norm': math.inf, 'skipped': 1.0})
  writer.close()
  text = (tmp_path / 'metrics.jsonl').read_text()
  assert 'NaN' not in text and 'Infinity' not in text
  (row,) = metrics.read(tmp_path)
  assert math.isnan(row['loss']) and math.isnan(row['grad_norm'])
  assert row['skipped'] == 1.0
