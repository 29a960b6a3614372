"""Runs: what they leave, started from each other, stopped, and refused."""

import json
import pathlib

import jax
import numpy as np
import pytest
from small_runs import lines, load, losses, train

from alignax import checkpoint, complete, metrics, run, stages
from alignax.cli import configs


@pytest.fixture(scope='module')
def dpo_run(home, tmp_path_factory):
  """A DPO run that starts from an SFT run, made by itself; on eight devices."""
  workdir = tmp_path_factory.mktemp('runs') / 'dpo'
  train(home, 'dpo', workdir, init_from=str(home / 'small_sft.py'))
  return workdir


@pytest.fixture(scope='module')
def sft_run(dpo_run):
  (stage,) = (dpo_run / 'stages').iterdir()
  return stage


class TestRunDirectory:
  def test_holds_everything(self, dpo_run):
    names = {path.name for path in dpo_run.iterdir()}
    assert names >= {
      'config.json', 'metrics.jsonl', 'tensorboard', 'checkpoints',
      'samples.jsonl', 'versions.json', 'model.json', 'tokenizer.json',
      'data.txt', 'generation_config.json',
    }  # fmt: skip
    assert not any(name.endswith('.new') for name in names)
    assert any((dpo_run / 'tensorboard').iterdir())
    versions = json.loads((dpo_run / 'versions.json').read_text())
    assert versions['jax'] == jax.__version__ and versions['commit']
    config = json.loads((dpo_run / 'config.json').read_text())
    assert config['algorithm'] == 'alignax.algorithms.dpo'

  def test_metrics_have_a_line_a_step_and_one_an_evaluation(self, dpo_run):
    rows = metrics.read(dpo_run)
    steps = [row['step'] for row in rows if 'loss' in row]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert all(row['seconds'] > 0 and row['tokens'] > 0 for row in rows[1:])
    measured = [row['step'] for row in rows if 'heldout/loss' in row]
    assert measured == [0, 3, 6]
    tokens = [row['tokens'] for row in rows]
    assert tokens == sorted(tokens)

  def test_samples_are_of_every_evaluation(self, dpo_run):
    text = (dpo_run / 'samples.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in text]
    assert [row['step'] for row in rows] == [0, 0, 3, 3, 6, 6]
    assert {'prompt', 'response'} <= rows[0].keys()


class TestStartingFrom:
  @pytest.mark.parametrize('name, args, match', [
    ('rewrd', '', 'There is no config'),
    ('reward', ':sise=tiny', 'did you mean .*size'),
  ])  # fmt: skip
  def test_no_stage_is_run_where_another_cannot_be(
    self, home, tmp_path, name, args, match
  ):
    starts = {
      'init_from': str(home / 'small_sft.py'),
      'role_from.reward': f'configs/{name}.py{args}',
    }
    match = f'configs/{name}.py{args}, which role_from.reward names: .*{match}'
    with pytest.raises(ValueError, match=match):
      train(home, 'ppo', tmp_path, **starts)
    assert not (tmp_path / 'stages').exists()

  def test_a_stage_is_run_once(self, home, dpo_run, sft_run):
    before = (sft_run / 'metrics.jsonl').stat().st_mtime_ns
    train(
      home, 'dpo', dpo_run, init_from=str(home / 'small_sft.py'), total_steps=7
    )
    assert (sft_run / 'metrics.jsonl').stat().st_mtime_ns == before
    assert losses(dpo_run)[6:] and len(losses(dpo_run)) == 7

  def test_the_policy_and_its_reference_are_those_of_the_other_run(
    self, dpo_run
  ):
    # So the first loss is that of a policy that is its reference.
    assert losses(dpo_run)[0] == pytest.approx(np.log(2), abs=1e-6)

  def test_stored_reference_log_probs_give_the_same_losses(
    self, home, dpo_run, sft_run, tmp_path
  ):
    given = {'init_from': str(sft_run), 'data.precompute_ref': True}
    train(home, 'dpo', tmp_path, **given)
    np.testing.assert_allclose(
      losses(tmp_path), losses(dpo_run)[:6], atol=1e-5
    )
    np.testing.assert_allclose(
      losses(tmp_path, 'heldout/loss'),
      losses(dpo_run, 'heldout/loss')[:3],
      atol=1e-5,
    )
    with np.load(tmp_path / 'reference.npz') as stored:
      assert stored['training'].shape == (64, 2)
      assert stored['heldout'].shape == (8, 2)

  def test_another_architecture_is_refused(self, home, sft_run, tmp_path):
    with pytest.raises(ValueError, match=r'model.width is 32, but the model in '
                       r'.* has 16'):  # fmt: skip
      train(
        home, 'dpo', tmp_path, init_from=str(sft_run), **{'model.width': 32}
      )

  def test_a_reward_model_that_is_none_is_refused(
    self, home, sft_run, tmp_path
  ):
    with pytest.raises(ValueError, match='is no reward model: it has no value'):
      train(home, 'ppo', tmp_path, init_from=str(sft_run))

  def test_a_workdir_of_another_config_is_refused(self, home, dpo_run):
    with pytest.raises(ValueError, match='another config; it differs in '
                       'data.batch_size'):  # fmt: skip
      train(
        home, 'dpo', dpo_run, init_from=str(home / 'small_sft.py'),
        **{'data.batch_size': 16},
      )  # fmt: skip


def test_stages_of_stages_are_made_once_and_beside_them(tmp_path, monkeypatch):
  made = []

  def train(config, where, *, load_config, beside):
    run.run_stages(config, beside, load_config)
    made.append(where)

  monkeypatch.setattr(run, 'train', train)
  monkeypatch.setattr(complete, 'is_complete', lambda where, _: where in made)
  sources = {
    name: configs.load(f'configs/{name}.py:size=tiny')
    for name in ('sft', 'reward', 'ppo')
  }
  load = lambda source: sources[pathlib.Path(source.split(':')[0]).stem]
  ppo = run.run_stages(sources['ppo'], tmp_path, load)
  policy, reward = made  # Not SFT once more, inside of the reward model's.
  assert policy.name.startswith('sft-') and reward.name.startswith('reward-')
  assert {path.parent for path in made} == {tmp_path}
  assert ppo.init_from == str(policy) and ppo.role_from.reward == str(reward)


def test_a_stage_whose_own_stage_has_changed_is_another(tmp_path):
  load = lambda source: {
    'reward.py': configs.load('configs/reward.py:size=tiny,init_from=sft.py'),
    'sft.py': sft,
  }[source]
  sft = configs.load('configs/sft.py:size=tiny')
  config = load('reward.py')
  before = stages.digest(config, load)
  assert stages.digest(config, load) == before
  sft.total_steps += 1
  assert stages.digest(config, load) != before


class TestNotFinite:
  def test_the_run_stops_names_the_rows_and_keeps_what_was_good(
    self, home, tmp_path
  ):
    given = {
      'algorithm': 'own_algorithm', 'algorithm_kw': {'poison_from': 4},
      'max_skipped': 3, 'total_steps': 20, 'checkpoint.every': 1,
      'evals.every': 0, 'ema_decay': 0.9,
    }  # fmt: skip
    with pytest.raises(run.NotFinite) as error:
      train(home, 'sft', tmp_path, **given)
    message = str(error.value)
    assert 'The last 3 updates' in message and 'batch of step 6' in message
    assert 'synthetic:demonstrations' in message
    rows = [row for row in lines(tmp_path) if 'loss' in row]
    assert [row['skipped'] for row in rows] == [0, 0, 0, 1, 1, 1]
    saved = tmp_path / 'checkpoints'
    assert checkpoint.latest_step(saved) == 5
    policy = checkpoint.load_role(saved, 'policy')
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(policy))

  def test_between_two_lines_too(self, home, tmp_path):
    given = {
      'algorithm': 'own_algorithm', 'algorithm_kw': {'poison_from': 4},
      'max_skipped': 3, 'total_steps': 20, 'log.every': 5, 'evals.every': 0,
    }  # fmt: skip
    with pytest.raises(run.NotFinite, match='last 3 .* batch of step 6'):
      train(home, 'sft', tmp_path, **given)
    (row,) = [row for row in lines(tmp_path) if 'loss' in row]
    assert row['step'] == 5 and row['skipped_total'] == 2


REFUSED = {
  'algorithm': ({'algorithm': 'alignax.algorithms.dop'}, 'did you mean .*dpo'),
  'no algorithm': ({'algorithm': ''}, 'algorithm is empty'),
  'algorithm_kw': (
    {'algorithm_kw.bta': 1}, r'algorithm_kw.bta .* did you mean .beta'
  ),
  'data': ({'data.lenght': 1}, r'data.lenght .* did you mean .length'),
  'optimizer': (
    {'optimizer.learning_rat': 1}, r'did you mean .learning_rate'
  ),
  'optimizer name': ({'optimizer.name': 'adam'}, "there are .*'adamw'"),
  'mesh': ({'mesh.tenser': 1}, 'mesh.tenser .* did you mean .tensor'),
  'model': ({'model.widht': 1}, 'model.widht .* did you mean .width'),
  'dtype': ({'model.dtype': 'fp32'}, "'fp32'; it is one of float32"),
  'top': ({'total_step': 1}, 'total_step .* did you mean .total_steps'),
  'no model': ({'model': {'dtype': 'float32', 'remat': 'none'}},
               'needs model.depth'),
  'mesh size': ({'mesh.tensor': 3}, 'does not cover the 8 devices'),
  'batch': ({'data.batch_size': 12}, '12, which does not divide over'),
  'parts': ({'algorithm_kw.microbatches': 3}, 'do not divide into 3'),
  'tokenizer': ({'tokenizer': ''}, 'There is no tokenizer'),
  'no path': ({'data.path': ''}, 'data.path is empty'),
  'mixtur': ({'data.mixtur': {}}, "data.mixtur .* did you mean 'mixture'"),
  'path and mixture': ({'data.mixture': {'a': {'path': 'a.jsonl'}}},
                       'and there is a data.mixture'),
  'mixture': (
    {'data.path': '', 'data.mixture': {'a': {'path': 'a', 'wieght': 1}}},
    "data.mixture.a.wieght .* did you mean 'weight'",
  ),
  'no source': ({'data.path': '', 'data.mixture': {'a': 3.0}},
                'mixture.a is 3.0; give it at least a path'),
  'heldout': ({'data.heldout_path': '', 'data.heldout': 99}, 'only 64 rows'),
  'steps': ({'total_steps': 0}, 'total_steps is 0'),
}  # fmt: skip


class TestRefused:
  @pytest.mark.parametrize('name', REFUSED)
  def test_before_anything_compiles(self, home, tmp_path, name, monkeypatch):
    changes, match = REFUSED[name]

    def compiled(*_):
      raise AssertionError('It got as far as making parameters.')

    monkeypatch.setattr('alignax.role_params.load_roles', compiled)
    with pytest.raises(ValueError, match=match):
      train(home, 'dpo', tmp_path, **changes)

  def test_a_missing_key(self, home, tmp_path):
    config = load(home, 'sft')
    with config.unlocked():
      del config.data['template']
    with pytest.raises(ValueError, match='lacks data.template; start it from'):
      run.train(config, tmp_path)

  def test_an_empty_data_set(self, home, tmp_path):
    (tmp_path / 'rows.jsonl').write_text('')
    with pytest.raises(ValueError, match='rows.jsonl|empty'):
      train(
        home, 'sft', tmp_path / 'run',
        **{'data.path': str(tmp_path / 'rows.jsonl')},
      )  # fmt: skip

  def test_a_metric_to_keep_the_best_by_that_is_not_measured(
    self, home, tmp_path
  ):
    with pytest.raises(ValueError, match="'heldout/los', which is not "
                       "measured; did you mean 'heldout/loss'"):  # fmt: skip
      train(
        home, 'sft', tmp_path,
        **{'checkpoint.keep_best': 1, 'checkpoint.best_metric': 'heldout/los'},
      )  # fmt: skip

  def test_the_command_line_names_the_nearest_key(self, home):
    with pytest.raises(ValueError, match='did you mean --config.data.length'):
      configs.load(str(home / 'small_sft.py'), ['--config.data.lenght=3'])
