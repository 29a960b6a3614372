"""Checks that what a config names by its path is there, before a stage runs.

A name that the hub may have is left alone: only asking it would tell.
"""

import pathlib
import re

from alignax import stages
from alignax.data import sources
from alignax.data.files import SUFFIXES

# Of a model, as `models.load` tells it from a path; tokenizers may have no
# organisation. No name begins with a dot, as './model' does.
MODEL = re.compile(r'[\w-][\w.-]*/[\w.-]+')
TOKENIZER = re.compile(r'([\w-][\w.-]*/)?[\w-][\w.-]*')


def check(config):
  """Raises FileNotFoundError, naming the key."""
  for key, path in data_paths(config).items():
    check_rows(key, path)
  for key, source in stages.sources(config).items():
    if not stages.is_config(source):
      check_directory(key, source, MODEL)
  if config.tokenizer:
    check_directory('tokenizer', config.tokenizer, TOKENIZER)


def data_paths(config) -> dict[str, str]:
  """Every path of rows that a config names, by its key."""
  d, probes = config.data, config.evals.probes
  keys = ('path', 'heldout_path', 'ptx_path')
  found = {f'data.{key}': d[key] for key in keys}
  for name, source in (d.get('mixture') or {}).items():
    found[f'data.mixture.{name}.path'] = source.path
  if probes.every:
    found['evals.probes.text'] = probes.text
  return {key: path for key, path in found.items() if path}


def check_rows(key: str, path: str):
  """Raises if a file of rows is not there; one path may be a mixture."""
  for part in sources.weighed_parts(path) or [{'path': path}]:
    where, _, _ = sources.split_query(part['path'], None)
    is_file = sources.suffix_of(where) in SUFFIXES
    if where.startswith('synthetic:') or pathlib.Path(where).exists():
      continue
    if is_file or where.startswith(('/', '.', '~')):
      raise FileNotFoundError(
        f'{key} is {path!r}: there is no such file or folder as {where} '
        f'(working directory {pathlib.Path.cwd()}).'
      )


def check_directory(key: str, source: str, hub: re.Pattern):
  """Raises if a model or tokenizer is neither there nor a name on the hub."""
  if not pathlib.Path(source).exists() and not hub.fullmatch(source):
    raise FileNotFoundError(
      f'{key} is {source!r}, which does not exist (working directory '
      f'{pathlib.Path.cwd()}), and is no name on the hub.'
    )
