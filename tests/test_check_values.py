"""Values that would be found wrong only once a run, or its stages, train."""

import importlib
import re

import pytest

from alignax import assemble, check_values, checks, preflight, run
from alignax.cli import configs


def load(source, changes):
  config = configs.load(f'configs/{source}')
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return config


def check(config):
  check_values.check(config)
  algorithm = assemble.find_algorithm(config.algorithm)
  kw = checks.algorithm_arguments(algorithm, config)
  check_values.check_arguments(algorithm, kw)


WRONG = [
  ('total_steps', 0, 'a whole number, at least 1'),
  ('max_skipped', -1, 'at least 0'),
  ('ema_decay', 1.0, 'to below 1'),
  ('ema_decay', -0.1, 'to below 1'),
  ('data.length', 1, 'at least 2'),
  ('data.batch_size', 0, 'at least 1'),
  ('data.batch_size', -8, 'at least 1'),
  ('data.heldout', -1, 'at least 0'),
  ('data.ptx_batch_size', -1, 'at least 0'),
  ('data.template', 'chatlm', "did you mean 'chatml'"),
  ('data.on_bad_row', 'ignore', 'known are raise, skip'),
  ('data.format', 'alpacca', "did you mean 'alpaca'"),
  ('data.turns', 'lst', "did you mean 'last'"),
  ('optimizer.learning_rate', float('nan'), 'a finite number'),
  ('optimizer.learning_rate', float('inf'), 'a finite number'),
  ('optimizer.learning_rate', -1e-5, 'a finite number, at least 0'),
  ('optimizer.warmup_steps', -1, 'at least 0'),
  ('checkpoint.every', -5, 'at least 0'),
  ('checkpoint.keep', 0, 'at least 1, or nothing is left of the run'),
  ('checkpoint.keep', -1, 'at least 1'),
  ('checkpoint.keep_best', -1, 'at least 0'),
  ('log.every', 0, 'at least 1'),
  ('evals.every', -1, 'at least 0'),
  ('evals.samples', -1, 'at least 0'),
  ('evals.probes.per_prompt', 0, 'at least 1'),
]


@pytest.mark.parametrize('key, value, match', WRONG)
def test_it_is_named_with_what_it_is_to_be(key, value, match):
  config = load('sft.py', {key: value})
  with pytest.raises(ValueError, match=f'{key} is {value!r}.*{match}'):
    preflight.check(config)


@pytest.mark.parametrize('value', [64.0, '64', None])
def test_a_type_that_only_a_config_file_can_give(value):
  config = load('sft.py', {})
  with config.ignore_type():
    config.data.length = value
  with pytest.raises(ValueError, match=f'length is {value!r}; give a whole'):
    preflight.check(config)


def test_a_source_of_a_mixture_has_a_format():
  mixture = {'a': {'path': 'synthetic:demonstrations', 'format': 'mesages'}}
  config = load('sft.py', {'data.path': '', 'data.mixture': mixture})
  with pytest.raises(ValueError, match=r"a.format is 'mesages'; did .*messag"):
    preflight.check(config)


@pytest.mark.parametrize('changes', [
  {'data.template': 'chatml'}, {'data.template': '{{ messages }}'},
  {'data.format': 'messages'}, {'ema_decay': 0.99}, {'evals.samples': 0},
  {'optimizer.learning_rate': 0.0},
])  # fmt: skip
def test_values_that_there_are(changes):
  check(load('sft.py', changes))


ARGUMENTS = [
  ('ppo.py', 'minibatches', 0, 'minibatches is 0; give a whole number'),
  ('ppo.py', 'microbatches', 0, 'microbatches is 0; give a whole number'),
  ('grpo.py', 'epochs', 0, 'epochs is 0; give a whole number'),
  ('grpo.py', 'rounds', 0, 'rounds is 0; give a whole number'),
  ('raft.py', 'group', 0, 'group is 0; give a whole number'),
  ('distill.py', 'max_new_tokens', 0, 'max_new_tokens is 0; give a whole'),
  ('rloo.py', 'temperature', -1.0, 'temperature is -1.0; it must be at least'),
  ('remax.py', 'top_p', 0.0, r'top_p is 0.0; it must be in \(0, 1]'),
  ('distill.py', 'sampling_temperature', -1.0, 'sampling_temperature is -1.0'),
  ('distill.py', 'on_policy', 2.0, 'on_policy is 2.0; it is a share'),
  ('sft.py', 'average', 'tokn', "average is 'tokn'; it is 'token' or"),
  ('ppo.py', 'kl_kind', 'k4', "kl_kind 'k4'; use one of .'k1', 'k2', 'k3'"),
  ('ppo.py', 'kl_in', 'rewrd', "kl_in is 'rewrd'; it is 'reward' or 'loss'"),
  ('ppo.py', 'kl_in', 'loss', "kl_kind 'k1' has no gradient"),
  ('ppo.py', 'target_kl', -1.0, 'target_kl is -1.0'),
  ('grpo.py', 'kl_kind', 'k1', "kl_kind 'k1' has no gradient"),
  ('grpo.py', 'kl_kind', 'k4', "kl_kind 'k4'; use one of .'k2', 'k3'"),
  ('grpo.py', 'scale', 'groups', "scale 'groups'; use one of .'batch'"),
  ('grpo.py', 'average', 'tokens', "average 'tokens'; use one of"),
  ('grpo.py', 'importance', 'tokens', "importance 'tokens'; use one of"),
  ('grpo.py', 'ratio', 'tokens', "ratio is 'tokens'; it is 'token'"),
  ('grpo.py', 'overlong_cache', -1, 'overlong_cache is -1'),
  ('reinforce_pp.py', 'kl_in', 'rewrd', "kl_in 'rewrd'; use one of"),
  ('reinforce_pp.py', 'baseline', 'groups', "baseline 'groups'; use one of"),
  ('reinforce_pp.py', 'baseline', 'group', 'group is 1; .* at least 2'),
  ('rloo.py', 'group', 1, 'group is 1; a response needs another'),
  ('online_dpo.py', 'group', 1, 'group is 1; a pair needs at least 2'),
  ('llama3_rounds.py', 'sft_steps', -1, 'a round of at least 1 step'),
  ('dpo.py', 'divergence', 'forwrd_kl', "divergence 'forwrd_kl'; use one of"),
  ('dpo.py', 'label_smoothing', 0.5, r'label_smoothing is 0.5; .* in \[0, 0.5'),
  ('dpo.py:loss=aot', 'microbatches', 2, 'compares all pairs of a batch'),
  ('simpo.py', 'label_smoothing', 2.0, 'label_smoothing is 2.0'),
  ('cpo.py', 'kind', 'sigmod', "'sigmod'; use one of .'hinge', 'sigmoid'"),
  ('cpo.py', 'label_smoothing', 2.0, 'label_smoothing is 2.0'),
  ('reward.py', 'ranking', 'pair', "ranking 'pair'; use one of"),
]


@pytest.mark.parametrize('source, key, value, match', ARGUMENTS)
def test_arguments_of_algorithms(source, key, value, match):
  config = load(source, {f'algorithm_kw.{key}': value})
  with pytest.raises(ValueError, match=f'algorithm_kw.*{match}'):
    preflight.check(config)


def test_sampling_of_evaluations():
  config = load('sft.py', {'evals.sampling.temperature': -1.0})
  with pytest.raises(ValueError, match='evals.sampling: temperature is -1.0'):
    preflight.check(config)


def test_packed_rows_have_no_room_for_responses():
  config = load('distill.py:on_policy=0.5', {'data.packing': True})
  with pytest.raises(ValueError, match='data.packing is True, .* needs False'):
    preflight.check(config)


def test_an_algorithm_of_ones_own_has_its_say(monkeypatch):
  own = importlib.import_module('own_algorithm')
  config = load('sft.py', {})
  config.algorithm, config.algorithm_kw = own.__name__, {'poison_from': -1}
  check(config)

  def check_kw(*, poison_from=0, **_):
    if poison_from < 0:
      raise ValueError(f'poison_from is {poison_from}; give 0 or more.')

  monkeypatch.setattr(own, 'check_kw', check_kw, raising=False)
  message = 'algorithm_kw: poison_from is -1; give 0 or more.'
  with pytest.raises(ValueError, match=re.escape(message)):
    check(config)


def test_no_stage_runs_before(tmp_path, monkeypatch):
  monkeypatch.setattr(run, 'run_stages', None)
  config = load('ppo.py', {'algorithm_kw.minibatches': 0})
  with pytest.raises(ValueError, match='minibatches is 0'):
    run.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
