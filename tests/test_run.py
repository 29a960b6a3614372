"""Runs: killed and resumed, stopped, started from each other, and refused."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from alignax import checkpoint, complete, metrics, run
from alignax.cli import configs

ROOT = pathlib.Path(__file__).parent.parent
SMALL = """
import pathlib, sys
sys.path[:0] = [{root!r}]
from configs import {name}

def get_config(arg=None):
  config = {name}.get_config('size=tiny')
  config.total_steps = 6
  config.init_from, config.role_from.reward = '', ''
  config.model.update(
    width=16, depth=1, num_heads=2, num_kv_heads=2, head_dim=8, mlp_width=16,
    remat='none',
  )
  world = 'synthetic:{data}?n={{}}&seed=0&split={{}}'
  config.data.update(
    path=world.format(64, 'train'), heldout_path=world.format(8, 'heldout'),
    batch_size=8, packing=False,
  )
  config.evals.update(every=3, samples=2)
  config.evals.sampling.max_new_tokens = 4
  config.optimizer.learning_rate = 1e-2
  {more}
  return config
"""
DATA = {
  'sft': 'demonstrations', 'dpo': 'preferences', 'reward': 'preferences',
  'ppo': 'prompts',
}  # fmt: skip
PPO = 'config.algorithm_kw.update(max_new_tokens=4, epochs=2, target_kl=0.01)'


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """A folder with a config of every algorithm, as small as they come."""
  folder = tmp_path_factory.mktemp('home')
  for name, data in DATA.items():
    text = SMALL.format(
      root=str(ROOT), name=name, data=data, more=PPO if name == 'ppo' else ''
    )
    (folder / f'small_{name}.py').write_text(text)
  return folder


def load(home, name, **overrides):
  """A config with 'data.batch_size': 4 and the like changed."""
  config = configs.load(str(home / f'small_{name}.py'))
  with config.unlocked():
    for key, value in overrides.items():
      *path, last = key.split('.')
      section = config
      for part in path:
        section = section[part]
      section[last] = value
  return config


def train(home, name, workdir, **overrides):
  config = load(home, name, **overrides)
  return run.train(config, workdir, load_config=configs.load)


def lines(workdir, *, but=('seconds',)):
  rows = metrics.read(workdir)
  return [{k: v for k, v in row.items() if k not in but} for row in rows]


def losses(workdir, name='loss'):
  return [row[name] for row in lines(workdir) if name in row]


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
      'data.txt',
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


def rows_of(*names, n=40):
  return [
    {'instruction': f'{name} {i}', 'output': f'{name} is {i}'}
    for name in names
    for i in range(n)
  ]


def write_rows(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


@pytest.fixture
def found(monkeypatch):
  """What runs read, in order."""
  runs = []
  load_data = run.reading.load_data

  def kept(*args):
    runs.append(load_data(*args))
    return runs[-1]

  monkeypatch.setattr('alignax.reading.load_data', kept)
  return runs


class TestMixtures:
  def sources(self, found, steps):
    """How many rows of b and a are in the first batches."""
    text = ' '.join(found.batches.where(i, most=99) for i in range(steps))
    return text.count('b.jsonl:'), text.count('a.jsonl:')

  def mixture(self, folder):
    renamed = [
      {'question': row['instruction'], 'answer': row['output']}
      for row in rows_of('b')
    ]
    return dict(
      few=dict(
        path=write_rows(folder / 'b.jsonl', renamed),
        columns=dict(instruction='question', output='answer'),
        weight=1.0,
      ),
      many=dict(path=write_rows(folder / 'a.jsonl', rows_of('a')), weight=3.0),
    )

  def test_batches_meet_the_weights_and_a_run_goes_on(
    self, home, tmp_path, found
  ):
    given = {
      'data.path': '', 'data.heldout_path': '', 'data.heldout': 8,
      'data.mixture': self.mixture(tmp_path), 'data.batch_size': 16,
      'evals.samples': 0,  # The scorer knows the rows of its world only.
    }  # fmt: skip
    train(home, 'sft', tmp_path / 'run', total_steps=2, **given)
    assert len(losses(tmp_path / 'run')) == 2
    assert self.sources(found[0], 2) == (8, 24)
    held = found[0].heldout.rows
    assert [len(source.rows) for source in held.sources] == [4, 4]
    train(home, 'sft', tmp_path / 'run', total_steps=3, **given)
    assert len(losses(tmp_path / 'run')) == 3
    given['data.mixture']['many']['weight'] = 2.0
    with pytest.raises(ValueError, match='differs in data.mixture.many.weight'):
      train(home, 'sft', tmp_path / 'run', total_steps=3, **given)

  def test_a_weight_is_changed_on_the_command_line(self, home, tmp_path):
    text = (home / 'small_sft.py').read_text().replace(
      '  return config', f'  config.data.path = ""\n'
      f'  config.data.mixture = {self.mixture(tmp_path)!r}\n  return config'
    )  # fmt: skip
    (tmp_path / 'mixed.py').write_text(text)
    config = configs.load(
      str(tmp_path / 'mixed.py'), ['--config.data.mixture.many.weight=5']
    )
    assert config.data.mixture.many.weight == 5.0
    with pytest.raises(ValueError, match='did you mean .*data.mixture.'):
      configs.load(
        str(tmp_path / 'mixed.py'), ['--config.data.mixture.mny.weight=5']
      )

  def test_paths_with_weights_as_the_command_line_gives_them(
    self, home, tmp_path, found
  ):
    a, b = (
      write_rows(tmp_path / f'{name}.jsonl', rows_of(name)) for name in 'ab'
    )
    config = configs.load(
      str(home / 'small_sft.py'),
      [f'--config.data.path={a}:3,{b}:1', '--config.total_steps=2'],
    )
    run.train(config, tmp_path / 'run')
    assert self.sources(found[0], 2) == (4, 12)

  def test_columns_of_a_single_file(self, home, tmp_path, found):
    config = load(
      home, 'sft', total_steps=1, **{
        'data.path': self.mixture(tmp_path)['few']['path'],
        'data.heldout_path': '', 'data.heldout': 8, 'evals.samples': 0,
        'data.columns': dict(instruction='question', output='answer'),
      }
    )  # fmt: skip
    run.train(config, tmp_path / 'run')
    assert found[0].batches.rows[0]['instruction'] == 'b 0'


class TestBadStart:
  def test_the_corrected_command_may_use_the_same_workdir(
    self, home, tmp_path
  ):
    bad = write_rows(tmp_path / 'bad.jsonl', [{'text': 3}] * 20)
    with pytest.raises(ValueError, match='no example'):
      train(home, 'sft', tmp_path / 'run', **{'data.path': bad})
    rows = [*rows_of('a'), *[{'instruction': 3, 'output': 'b'}] * 20]
    good = write_rows(tmp_path / 'good.jsonl', rows)
    train(home, 'sft', tmp_path / 'run', total_steps=1, **{'data.path': good})
    config = json.loads((tmp_path / 'run' / 'config.json').read_text())
    assert config['data']['path'] == good
    with pytest.raises(ValueError, match='another config; it differs in '
                       'data.path'):  # fmt: skip
      train(home, 'sft', tmp_path / 'run', total_steps=1)

  def test_every_bad_row_is_named_in_the_directory_of_the_run(
    self, home, tmp_path, capsys
  ):
    rows = [*rows_of('a'), *[{'instruction': 3, 'output': 'b'}] * 20]
    path = write_rows(tmp_path / 'rows.jsonl', rows)
    train(home, 'sft', tmp_path / 'run', total_steps=1, **{'data.path': path})
    text = (tmp_path / 'run' / 'data.txt').read_text()
    assert all(f'rows.jsonl:{i}: ' in text for i in range(41, 61))
    printed = capsys.readouterr().out
    assert 'rows.jsonl:45' in printed and 'and 15 more' in printed
    assert 'rows.jsonl:46' not in printed


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


def command(home, name, workdir, *more):
  return [
    sys.executable, '-m', 'alignax.cli', 'train',
    f'--config={home / f"small_{name}.py"}', f'--workdir={workdir}',
    '--config.total_steps=30', '--config.checkpoint.every=3',
    '--config.evals.every=10', *more,
  ]  # fmt: skip


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
  """One device, and compiled programs kept from one process to the next."""
  return os.environ | {
    'XLA_FLAGS': '--xla_backend_optimization_level=0',
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path_factory.mktemp('xla')),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    'PYTHONPATH': str(ROOT),
  }


def steps(workdir):
  path = workdir / 'metrics.jsonl'
  return path.read_text().count('"loss"') if path.exists() else 0


def saving(workdir):
  """Whether a checkpoint is being written at this moment."""
  path = workdir / 'checkpoints'
  return path.exists() and any('tmp' in name for name in os.listdir(path))


def interrupt(argv, environment, when, number):
  """Starts a command, sends a signal once `when()` holds; (rc, output)."""
  with subprocess.Popen(
    argv, env=environment, cwd=ROOT, text=True,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  ) as process:  # fmt: skip
    end = time.monotonic() + 300
    while process.poll() is None and not when():
      assert time.monotonic() < end, 'It never came to the moment to stop it.'
      time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
      process.send_signal(number)
    output = process.communicate(timeout=300)[0]
  return process.returncode, output


def finish(argv, environment):
  result = subprocess.run(
    argv, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600
  )
  assert result.returncode == 0, result.stdout + result.stderr


def kill_again_and_again(argv, environment, workdir):
  """Kills a run at several moments; returns which of them hit a save.

  Before the first checkpoint, in a save, asked nicely, and in a save again.
  """
  hits = []
  kill = lambda when: interrupt(argv, environment, when, signal.SIGKILL)
  code, _ = kill(lambda: steps(workdir) >= 1)
  assert code == -signal.SIGKILL
  assert kill(lambda: saving(workdir))[0] == -signal.SIGKILL
  hits.append(saving(workdir))
  code, output = interrupt(
    argv, environment, lambda: steps(workdir) >= 8, signal.SIGTERM
  )
  assert code == 0 and 'Stopped at step' in output, output
  saved = checkpoint.latest_step(workdir / 'checkpoints')
  assert f'Stopped at step {saved} of 30' in output
  kill(lambda: steps(workdir) > saved and saving(workdir))
  hits.append(saving(workdir))
  return hits


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
  home, environment, tmp_path
):
  noise = '--config.algorithm_kw.neftune=5.0'  # So keys have to be right, too.
  once = command(home, 'sft', tmp_path / 'once', noise)
  finish(once, environment)
  again = command(home, 'sft', tmp_path / 'again', noise)
  hits = kill_again_and_again(again, environment, tmp_path / 'again')
  finish(again, environment)
  assert lines(tmp_path / 'again') == lines(tmp_path / 'once')
  samples = lambda name: (tmp_path / name / 'samples.jsonl').read_text()
  assert samples('again') == samples('once')
  assert any(hits), 'No kill fell into a save: the test shows less than it says'
  one, two = (
    checkpoint.load_role(tmp_path / name / 'checkpoints', 'policy')
    for name in ('once', 'again')
  )
  jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.slow
def test_a_killed_ppo_run_too(home, environment, tmp_path):
  """With several epochs, an adaptive coefficient, and what it samples."""
  finish(command(home, 'reward', tmp_path / 'reward'), environment)
  finish(command(home, 'sft', tmp_path / 'sft'), environment)
  more = (
    f'--config.init_from={tmp_path / "sft"}',
    f'--config.role_from.reward={tmp_path / "reward"}',
    '--config.algorithm_kw.minibatches=2',
  )
  once = command(home, 'ppo', tmp_path / 'once', *more)
  finish(once, environment)
  again = command(home, 'ppo', tmp_path / 'again', *more)
  kill_again_and_again(again, environment, tmp_path / 'again')
  finish(again, environment)
  rows = lines(tmp_path / 'once')
  assert lines(tmp_path / 'again') == rows
  assert len({row['kl_coef'] for row in rows if 'kl_coef' in row}) > 5


def test_stages_of_stages_are_made_once_and_beside_them(tmp_path, monkeypatch):
  made = []

  def train(config, where, *, load_config, stages):
    run.run_stages(config, stages, load_config)
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
