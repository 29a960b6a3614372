"""The runs that another run starts from, where they are named by configs."""

import hashlib

# 'configs/sft.py:size=tiny' is a config; everything else is a place.
CONFIG = '.py'


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
  text, sources = config.to_json(), []

  def collect(source):
    if CONFIG in source:
      sources.append(source)
    return source

  resolved(config, collect)
  for source in sources:
    text += digest(load_config(source), load_config)
  return hashlib.sha256(text.encode()).hexdigest()[:8]
