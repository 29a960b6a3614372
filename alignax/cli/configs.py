"""Configs by file name and argument string, with overrides.

ml_collections' `config_flags` does the work: typed overrides of single keys,
and the argument string after the colon.
"""

import difflib
import pathlib
import re
import sys

import ml_collections
from absl import flags
from ml_collections import config_flags


def load(
  source: str, overrides: list[str] = ()
) -> ml_collections.ConfigDict:
  """Loads 'FILE.py:ARGS' and applies '--config.KEY=VALUE' overrides.

  Raises:
    FileNotFoundError: no such file.
    ValueError: an unknown key (the nearest is named), or a value of another
      type than the key has.
  """
  path, _, _ = source.partition(':')
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(
      f'There is no config {path}; run this where configs/ is, or give a path.'
    )
  # Configs import `configs.common`, and a user's may import their own modules.
  sys.path[:0] = [p for p in ('.',) if p not in sys.path]
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values)
  arguments = ['alignax', f'--config={source}', *overrides]
  try:
    left = values(arguments)
  except flags.UnrecognizedFlagError as error:
    raise ValueError(_unknown(error, source)) from error
  except flags.Error as error:
    raise ValueError(str(error)) from error
  if len(left) > 1:
    raise ValueError(
      f'{left[1]!r} is not understood; overrides look like '
      '--config.total_steps=100.'
    )
  return values.config


def _unknown(error, source: str) -> str:
  key = error.flagname.removeprefix('config.')
  known = _keys(load(source))
  close = difflib.get_close_matches(key, known, 1, 0.5)
  # A key is often right but in the wrong place: optimizer.beta for b1, say.
  last = key.rsplit('.', 1)[-1]
  close += [k for k in known if re.search(rf'(^|\.){re.escape(last)}$', k)]
  hint = f'; did you mean config.{close[0]}?' if close else '.'
  return f'--{error.flagname}: there is no such key{hint}'


def _keys(config, prefix: str = '') -> list[str]:
  found = []
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      found += _keys(value, f'{prefix}{key}.')
    else:
      found.append(f'{prefix}{key}')
  return found
