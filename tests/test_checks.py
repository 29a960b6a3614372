"""What is refused before anything is loaded: data that a step would not read,
and settings that would do nothing."""

import importlib
import types

import jax
import pytest
import tiny_worlds as worlds

from alignax import assemble, checks, run
from alignax.cli import configs

PTX = {
  'algorithm_kw.ptx_coef': 0.5, 'data.ptx_path': 'text.jsonl',
  'data.batch_size': 8,
}  # fmt: skip


def load(source, changes):
  config = configs.load(f'configs/{source}')
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return config


def check(config, mesh=None):
  algorithm = assemble.find_algorithm(config.algorithm)
  kw = checks.algorithm_arguments(algorithm, config)
  checks.check_kind(config, algorithm)
  checks.check_batch(config, algorithm, kw, mesh or worlds.make_mesh())


@pytest.mark.parametrize('source, changes', [
  ('reward.py:kind=rankings', {}),
  ('reward.py', {'data.kind': 'rankings'}),
  ('dpo.py', {'data.kind': 'pairs'}),
  ('sft.py', {'data.turns': 'last'}),
  ('ppo.py', PTX),
  ('ppo.py', PTX | {'data.ptx_batch_size': 4, 'algorithm_kw.minibatches': 4}),
])  # fmt: skip
def test_data_that_an_algorithm_reads(source, changes):
  check(load(source, changes))


@pytest.mark.parametrize('source, changes, match', [
  ('dpo.py', {'data.kind': 'rankings'},
   "'rankings', but alignax.algorithms.dpo reads pairs"),
  ('reward.py', {'data.kind': 'text'}, 'reads pairs or rankings'),
  ('sft.py', {'data.kind': 'pair'}, 'reads text'),
  ('kto.py', {'data.turns': 'last'}, 'data.turns .* text only; .* unpaired'),
  ('ppo.py', {'data.turns': 'last'}, 'data.turns .* text only; .* prompts'),
  ('ppo.py', {'data.packing': True}, 'data.packing is True, .* to False'),
  ('sft.py', {'data.ptx_path': 'a.txt'},
   "ptx_path is 'a.txt', but alignax.algorithms.sft mixes no text in"),
  ('ppo.py', {'data.ptx_path': 'a.txt'}, 'ptx_coef is 0, which mixes none'),
  ('ppo.py', PTX | {'data.ptx_path': ''}, 'data.ptx_path is not'),
  ('ppo.py', PTX | {'data.ptx_batch_size': 6, 'algorithm_kw.minibatches': 4},
   'data.ptx_batch_size is 6, .* into 4 minibatches'),
  ('ppo.py', PTX | {'data.ptx_batch_size': 2, 'algorithm_kw.minibatches': 2,
                    'algorithm_kw.microbatches': 2},
   'data.ptx_batch_size is 2, .* into 4 minibatches'),
])  # fmt: skip
def test_data_that_it_does_not_read(source, changes, match):
  with pytest.raises(ValueError, match=match):
    check(load(source, changes))


def test_an_algorithm_of_ones_own_may_read_several_kinds(monkeypatch):
  own = importlib.import_module('own_algorithm')
  config = load('sft.py', {'data.kind': 'pairs', 'algorithm': own.__name__})
  with pytest.raises(ValueError, match='own_algorithm reads text'):
    checks.check_kind(config, own)
  monkeypatch.setattr(own, 'OTHER_KINDS', ('pairs',), raising=False)
  checks.check_kind(config, own)


def test_pretraining_text_divides_over_devices_and_hosts(monkeypatch):
  config = load('ppo.py', PTX | {'data.ptx_batch_size': 6})
  mesh = types.SimpleNamespace(shape={'data': 2, 'fsdp': 2, 'tensor': 1})
  with pytest.raises(ValueError, match='ptx_batch_size is 6, .* into 4 data'):
    check(config, mesh)
  check(config)
  monkeypatch.setattr(jax, 'process_count', lambda: 4)
  with pytest.raises(ValueError, match='ptx_batch_size is 6, .* into 4 hosts'):
    check(config)


@pytest.mark.parametrize('changes', [
  {'data.heldout': 4}, {'data.heldout_path': 'rows.jsonl'},
  {'evals.probes.every': 5},
])  # fmt: skip
def test_there_is_something_to_evaluate_on(changes):
  none = {'evals.every': 5, 'data.heldout': 0, 'data.heldout_path': ''}
  with pytest.raises(ValueError, match='evals.every is 5, but there is noth'):
    checks.check_config(load('sft.py', none))
  checks.check_config(load('sft.py', none | changes))
  checks.check_config(load('sft.py', none | {'evals.every': 0}))


def test_a_best_metric_keeps_something():
  best = {'checkpoint.best_metric': '-heldout/loss'}
  with pytest.raises(ValueError, match='checkpoint.keep_best is 0'):
    checks.check_config(load('sft.py', best))
  for kept in ({'checkpoint.keep_best': 1}, {'monitor.stop': True}):
    checks.check_config(load('sft.py', best | kept))


BEST = {'checkpoint.keep_best': 1, 'checkpoint.best_metric': '-heldout/loss'}
PROBED = {'checkpoint.best_metric': 'probes/length', 'evals.probes.every': 5}


@pytest.mark.parametrize('changes', [
  {'checkpoint.every': 5, 'evals.every': 5},
  {'checkpoint.every': 10, 'evals.every': 5},
  {'checkpoint.every': 10, **PROBED},
  {'checkpoint.every': 0, 'evals.every': 3},  # The last one is always rated.
  {'checkpoint.every': 5, 'evals.every': 3, 'monitor.stop': True},
])  # fmt: skip
def test_what_is_saved_is_rated(changes):
  checks.check_config(load('sft.py', BEST | changes))


@pytest.mark.parametrize('changes, match', [
  ({'checkpoint.best_metric': ''}, 'checkpoint.best_metric is empty: set it'),
  ({'checkpoint.every': 5, 'evals.every': 0}, 'set evals.every, which is 0'),
  ({'checkpoint.every': 5, 'evals.every': 10}, 'set evals.every, which is 10'),
  ({'checkpoint.every': 5, 'evals.every': 3},
   "every 5, '-heldout/loss' is not measured: set evals.every, which is 3"),
  ({'checkpoint.every': 6, 'evals.every': 3, **PROBED},
   'set evals.probes.every, which is 5'),
])  # fmt: skip
def test_the_best_is_not_chosen_among_what_is_not_rated(changes, match):
  with pytest.raises(ValueError, match=f'keep_best is 1, but .*{match}'):
    checks.check_config(load('sft.py', BEST | changes))


def test_a_run_is_refused_before_it_runs_what_it_starts_from(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(run, 'run_stages', None)
  config = load('dpo.py', {'data.kind': 'rankings', 'data.batch_size': 8})
  with pytest.raises(ValueError, match='data.kind'):
    run.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
