"""What a config names is there, before a stage of it runs."""

import pytest

from alignax import check_paths, preflight, stages
from alignax.cli import configs


@pytest.mark.parametrize('source', [
  'configs/sft.py', 'configs/sft.py:size=tiny', '/home/me/sft.py:beta=0.1',
])  # fmt: skip
def test_a_config_is_a_file_with_arguments(source):
  assert stages.is_config(source)


@pytest.mark.parametrize('source', [
  '', 'runs/sft', '/home/me/.pyenv/models/smollm2', 'org/model.pytorch',
  'model.pyc', 'sft.python:size=tiny',
])  # fmt: skip
def test_everything_else_is_a_place(source):
  assert not stages.is_config(source)


def load(source, changes):
  config = configs.load(f'configs/{source}')
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return config


ABSENT = {
  'data.path': 'rows.jsonl',
  'data.heldout_path': '/absent/rows',
  'data.ptx_path': 'folder/rows.jsonl.gz?split=train',
  'data.mixture.few.path': './rows',
  'evals.probes.text': 'text.txt',
  'init_from': '/absent/model',
  'role_from.reward': './reward',
  'role_from.ref': 'runs/a/checkpoints/40',
  'rewards.kind.source': 'model.gguf',
  'rewards.both.members.1': '../model',
  'tokenizer': 'some/where/else',
}
BESIDE = {
  'data.ptx_path': {'algorithm_kw.ptx_coef': 0.5},
  'data.mixture.few.path': {'data.path': ''},
  'evals.probes.text': {'evals.probes.every': 5},
}
NESTED = {
  'data.mixture.few.path': lambda path: {
    'data.mixture': {'few': dict(path=path)}
  },
  'rewards.kind.source': lambda path: {
    'rewards': {'kind': dict(kind='model', source=path)}
  },
  'rewards.both.members.1': lambda path: {
    'rewards': {'both': dict(kind='model', members=('org/model', path))}
  },
}


@pytest.mark.parametrize('key', ABSENT)
def test_what_is_not_there_is_named(key):
  path = ABSENT[key]
  changes = NESTED.get(key, lambda path: {key: path})(path)
  config = load('ppo.py', changes | BESIDE.get(key, {}))
  with pytest.raises(FileNotFoundError) as error:
    preflight.check(config)
  assert str(error.value).startswith(f'{key} is {path!r}')


def test_a_path_of_a_mixture_that_is_not_there(tmp_path):
  there = tmp_path / 'a.jsonl'
  there.write_text('{}')
  for paths in (f'{there}:3,b.jsonl:1', f'{there}:0.5,b.jsonl'):
    with pytest.raises(FileNotFoundError, match='folder as b.jsonl'):
      check_paths.check_rows('data.path', paths)
  check_paths.check_rows('data.path', f'{there}:3,{there}?split=train:1')


@pytest.mark.parametrize('changes', [
  # Only the hub itself knows.
  {'init_from': 'nope/nope', 'role_from.reward': 'org/model.pytorch'},
  {'data.path': 'nope/nope', 'data.heldout_path': 'squad?split=validation'},
  {'tokenizer': 'gpt2'}, {'tokenizer': 'org/name'},
  {'role_from.reward': 'configs/absent.py:size=tiny'},
  {'evals.probes.text': 'absent.txt'},  # Which nothing reads.
])  # fmt: skip
def test_what_may_be_there(changes):
  preflight.check(load('ppo.py', changes))


def test_what_is_there(tmp_path):
  (tmp_path / 'rows.jsonl').write_text('{}')
  config = load('ppo.py', {
    'data.path': str(tmp_path / 'rows.jsonl'),
    'data.heldout_path': str(tmp_path), 'init_from': str(tmp_path),
    'role_from.reward': str(tmp_path), 'tokenizer': str(tmp_path),
  })  # fmt: skip
  preflight.check(config)
