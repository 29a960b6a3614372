"""The files of a tokenizer, which travel with a model unread."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignax.models import gguf_tokenizer, hf

GENERATION = 'generation_config.json'
TOKENIZER_FILES = (
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
  GENERATION,
)


def copy_tokenizer(source: Any, directory: Path) -> None:
  """Puts a tokenizer's files into a directory.

  Args:
    source: a transformers tokenizer, the directory or GGUF file to take one
      from, or None for none.
    directory: an existing one.
  """
  if source is None:
    return
  if hasattr(source, 'save_pretrained'):
    source.save_pretrained(directory)
    return
  path = Path(source)
  if path.is_file():
    gguf_tokenizer.write(path, directory)
    return
  files = [path / name for name in TOKENIZER_FILES if (path / name).exists()]
  if not has_tokenizer(path):
    raise FileNotFoundError(
      f'{path} has no tokenizer: neither tokenizer.json nor tokenizer.model.'
    )
  for file in files:
    shutil.copyfile(file, directory / file.name)


def save_tokenizer(tokenizer: Any, directory: Path, ends: Sequence[int]):
  """Writes a tokenizer, and what ends a response: it may be several tokens."""
  tokenizer.save_pretrained(directory)
  if ends:
    hf.write_json(directory / GENERATION, {'eos_token_id': list(ends)})


def has_tokenizer(directory: Path) -> bool:
  names = ('tokenizer.json', 'tokenizer.model')
  return any((directory / name).exists() for name in names)


def token_ids(directory: Path) -> dict[str, Any]:
  """Ids of the special tokens of the tokenizer in a directory."""
  names = ('bos_token_id', 'eos_token_id', 'pad_token_id')
  ids = {}
  if (directory / 'tokenizer_config.json').exists():
    ids = _tokenizer_ids(directory)
  if (directory / GENERATION).exists():
    # It may name several ends, of which the tokenizer knows one.
    ids |= hf.read_json(directory / GENERATION)
  return {name: ids[name] for name in names if ids.get(name) is not None}


def _tokenizer_ids(directory: Path) -> dict[str, int | None]:
  # Not through transformers, whose import takes longer than all the rest.
  import tokenizers

  path = directory / 'tokenizer.json'
  if not path.exists():
    return {}
  tokenizer = tokenizers.Tokenizer.from_file(str(path))
  settings = hf.read_json(directory / 'tokenizer_config.json')
  ids = {}
  for role in ('bos', 'eos', 'pad'):
    token = settings.get(f'{role}_token')
    token = token['content'] if isinstance(token, dict) else token
    if token is not None:
      ids[f'{role}_token_id'] = tokenizer.token_to_id(token)
  return ids
