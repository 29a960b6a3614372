"""Decoders as pure functions, and their import, export and storage."""

from alignax.models.adapters import Origin, write_description
from alignax.models.config import Config, RopeScaling
from alignax.models.io import (
  export,
  is_adapter,
  load,
  load_adapters,
  save,
  save_adapters,
  tokenizer_source,
)
from alignax.models.model import Model, add_value_head, values_of
from alignax.models.tokenizer_files import save_tokenizer

__all__ = [
  'Config',
  'Model',
  'Origin',
  'RopeScaling',
  'add_value_head',
  'export',
  'is_adapter',
  'load',
  'load_adapters',
  'save',
  'save_adapters',
  'save_tokenizer',
  'tokenizer_source',
  'values_of',
  'write_description',
]
