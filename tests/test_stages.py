"""What a config starts from, wherever it says so."""

import json

from alignax import stages
from configs import ppo

REWARDS = {
  'one': dict(kind='model', source='runs/rm'),
  'both': dict(kind='model', members=('runs/a', 'reward.py:size=tiny')),
  'rule': dict(kind='format'),
}
SOURCES = {
  'init_from': 'configs/sft.py:size=tiny',
  'role_from.reward': 'configs/reward.py:size=tiny',
  'rewards.both.members.0': 'runs/a',
  'rewards.both.members.1': 'reward.py:size=tiny',
  'rewards.one.source': 'runs/rm',
}


def make_config():
  config = ppo.get_config('size=tiny')
  config.rewards = REWARDS
  return config


def test_sources_are_found_by_their_keys():
  config = make_config()
  assert stages.sources(config) == SOURCES
  assert stages.sources(json.loads(config.to_json())) == SOURCES
  assert stages.sources({}) == {}


def test_all_that_is_resolved_is_a_source():
  seen = []
  config = make_config()
  stages.resolved(config, lambda source: seen.append(source) or source)
  assert list(filter(None, seen)) == list(stages.sources(config).values())
