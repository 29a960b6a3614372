"""Every offline algorithm by its config, through the one loop, end to end."""

import json

import numpy as np
import pytest

from alignax import checks, metrics, run
from alignax.algorithms import dpo
from alignax.cli import configs
from alignax.losses import lookup

# Config -> what its held-out set has to measure besides a loss.
MEASURED = {
  'kto.py': 'policy/kl',
  'kto.py:loss=bco': 'rewards/margin',
  'ipo.py': 'rewards/accuracy',
  'orpo.py': 'orpo/log_odds_ratio',
  'simpo.py': 'logps/chosen_mean',
  'simpo.py:loss=alphapo': 'logps/chosen_mean',
  'cpo.py': 'nll',
  'tpo.py': 'nll',
  'c_rlft.py': 'token/logps',
}


FAST = ('kto.py', 'ipo.py', 'c_rlft.py')


def shrunken(source, **changes):
  """A config as it is, but for a model and data as small as they come."""
  config = configs.load(f'configs/{source}')
  with config.unlocked():
    config.total_steps = 3
    config.init_from = ''
    config.model.update(
      width=16, depth=1, num_heads=2, num_kv_heads=2, head_dim=8, mlp_width=16,
      remat='none',
    )  # fmt: skip
    data = config.data.path.split('?')[0]
    config.data.update(
      path=f'{data}?n=96&seed=0', heldout_path=f'{data}?n=16&seed=1',
      batch_size=8,
    )  # fmt: skip
    config.evals.samples = 0
    config.optimizer.update(learning_rate=1e-2, warmup_steps=0)
    config.log.tensorboard = False
    for key, value in changes.items():
      section, _, name = key.rpartition('.')
      (config[section] if section else config)[name] = value
  return config


@pytest.mark.parametrize('source', [
  # One of each kind of data; the others' losses have tests of their own.
  pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
  for name in MEASURED
])  # fmt: skip
def test_it_runs_from_its_config(source, tmp_path):
  config = shrunken(source)
  run.train(config, tmp_path)
  rows = metrics.read(tmp_path)
  steps = [row for row in rows if 'loss' in row]
  assert len(steps) == 3
  assert all(row['skipped'] == 0 and row['grad_norm'] > 0 for row in steps)
  first, last = (row for row in rows if 'heldout/loss' in row)
  assert f'heldout/{MEASURED[source]}' in last
  numbers = [v for row in rows for v in row.values()]
  assert np.all(np.isfinite(numbers))
  assert first['heldout/loss'] != last['heldout/loss']
  assert json.loads((tmp_path / 'config.json').read_text())['data']['packing']


@pytest.mark.parametrize('name', lookup.names(dpo.TAKES))
def test_the_config_of_dpo_knows_what_every_loss_takes(name):
  config = configs.load(f'configs/dpo.py:loss={name},beta=0.3')
  kw = checks.algorithm_arguments(dpo, config)
  assert kw['loss'] == name and kw['beta'] == 0.3
  assert callable(dpo.make_loss(None, **{
    k: v for k, v in kw.items() if k != 'microbatches'
  }))  # fmt: skip


@pytest.mark.slow
def test_stored_reference_log_probs_give_bco_the_same_losses(tmp_path):
  rows = []
  for stored in (False, True):
    config = shrunken('kto.py:loss=bco', **{'data.precompute_ref': stored})
    run.train(config, tmp_path / str(stored))
    rows.append([
      row.get('loss', row.get('heldout/loss'))
      for row in metrics.read(tmp_path / str(stored))
    ])  # fmt: skip
  np.testing.assert_allclose(*rows, atol=1e-5)


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_running_mean(tmp_path):
  """BCO carries what KTO does not."""
  changes = {'checkpoint.every': 2, 'total_steps': 4}
  config = shrunken('kto.py:loss=bco', **changes | {'total_steps': 2})
  # A constant rate, which does not ask how many steps there will be.
  for total in (2, 4):
    config.total_steps = total
    config.optimizer.schedule = 'constant'
    run.train(config, tmp_path / 'twice')
  whole = shrunken('kto.py:loss=bco', **changes)
  whole.optimizer.schedule = 'constant'
  run.train(whole, tmp_path / 'whole')
  deltas = lambda name: [
    row['rewards/delta']
    for row in metrics.read(tmp_path / name)
    if 'rewards/delta' in row
  ]
  assert deltas('twice') == deltas('whole')
  assert len(set(deltas('whole'))) == 4
