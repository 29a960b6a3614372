"""The runs that another run starts from, where they are named by configs."""

import hashlib
import re


def is_config(source: str) -> bool:
  """Whether it is 'FILE.py' or 'FILE.py:ARGS'; everything else is a place."""
  return bool(re.search(r'\.py(:|$)', source))


def sources(config) -> dict[str, str]:
  """Every source that a config names, by its dotted key.

  'init_from', 'role_from.reward', 'rewards.NAME.source', and of an ensemble
  'rewards.NAME.members.0'; those that are empty are left out.

  Args:
    config: a `ConfigDict`, or the nested dicts of a config.json.
  """
  found = {'init_from': config.get('init_from')}
  for role, source in config.get('role_from', {}).items():
    found[f'role_from.{role}'] = source
  for name, reward in config.get('rewards', {}).items():
    found[f'rewards.{name}.source'] = reward.get('source')
    for i, member in enumerate(reward.get('members', ())):
      found[f'rewards.{name}.members.{i}'] = member
  return {key: source for key, source in found.items() if source}


def resolved(config, resolve):
  """A config with every source that it names replaced by `resolve(source)`."""
  config = config.copy_and_resolve_references()
  config.init_from = resolve(config.init_from)
  for role, source in config.role_from.items():
    config.role_from[role] = resolve(source)
  for reward in config.rewards.values():
    if 'source' in reward:
      reward.source = resolve(reward.source)
    if 'members' in reward:
      reward.members = type(reward.members)(map(resolve, reward.members))
  return config


def digest(config, load_config) -> str:
  """A name for what a config trains: of it, and of the configs it starts from.

  So a stage whose own stage has changed is another one, and made anew.
  """
  text = config.to_json()
  for source in sources(config).values():
    if is_config(source):
      text += digest(load_config(source), load_config)
  return hashlib.sha256(text.encode()).hexdigest()[:8]
