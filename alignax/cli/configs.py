"""Configs by file name and argument string, with overrides.

ml_collections' `config_flags` does the work: typed overrides of single keys,
and the argument string after the colon.
"""

import difflib
import importlib.util
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
    ValueError: an unknown key (the nearest is named), a value of another type
      than the key has, or an argument that the config does not take.
  """
  source = _find(source)
  # Configs import `configs.common`, and a user's may import their own modules.
  sys.path[:0] = [p for p in ('.',) if p not in sys.path]
  config = _parse(source)
  for item in overrides:
    match = re.match(r'--config\.([\w.]+)=', item)
    if match is None:
      raise ValueError(
        f'{item!r} is not understood; overrides look like '
        '--config.total_steps=100.'
      )
    _check_key(match[1], _keys(config))
  return _parse(source, overrides)


def _find(source: str) -> str:
  """'FILE.py:ARGS' of a file that is there, the installed one if need be."""
  path, colon, args = source.partition(':')
  if pathlib.Path(path).is_file():
    return source
  installed = _installed(pathlib.PurePath(path))
  if installed is None:
    raise FileNotFoundError(
      f'There is no config {path}, neither here nor among those that are '
      'installed as configs/NAME.py; give the path of a file.'
    )
  return f'{installed}{colon}{args}'


def _installed(path: pathlib.PurePath) -> pathlib.Path | None:
  """'configs/NAME.py' in the package `configs`, which is not imported."""
  if path.parent != pathlib.PurePath('configs'):
    return None
  spec = importlib.util.find_spec('configs')
  folders = spec.submodule_search_locations if spec else None
  files = (pathlib.Path(folder, path.name) for folder in folders or ())
  return next((file for file in files if file.is_file()), None)


def _parse(source: str, overrides=()) -> ml_collections.ConfigDict:
  values = flags.FlagValues()
  argv = ['alignax', f'--config={source}', *overrides]
  # Overrides are looked for in `sys_argv`, which is the process's otherwise.
  config_flags.DEFINE_config_file(
    'config', flag_values=values, sys_argv=argv
  )
  try:
    values(argv)
  except flags.Error as error:
    own = _own_error(error)
    if own is None:
      raise ValueError(str(error)) from error
    kind = '' if isinstance(own, ValueError) else f'{type(own).__name__}: '
    raise ValueError(f'{source}: {kind}{own}') from own
  return values.config


def _own_error(error: BaseException) -> BaseException | None:
  """What the config file itself raised, if it did; a mistyped name, say.

  ml_collections writes the whole trace into a message of its own.
  """
  if 'Error whilst parsing config file' not in str(error):
    return None
  inner = error.__context__
  return inner and (_own_error(inner) or inner)


def _check_key(key: str, known: list[str]):
  if key in known:
    return
  # A key is often right but in the wrong place: config.beta, say.
  last = key.rsplit('.', 1)[-1]
  close = [k for k in known if k.rsplit('.', 1)[-1] == last]
  close += difflib.get_close_matches(key, known, 1, 0.5)
  hint = f'; did you mean --config.{close[0]}?' if close else '.'
  raise ValueError(f'--config.{key}: there is no such key{hint}')


def _keys(config, prefix: str = '') -> list[str]:
  found = []
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      found += _keys(value, f'{prefix}{key}.')
    else:
      found.append(f'{prefix}{key}')
  return found
