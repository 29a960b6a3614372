"""Decoders as pure functions, and their import, export and storage."""

from alignax.models.config import Config, RopeScaling
from alignax.models.io import export, load, save, write_description
from alignax.models.model import Model, add_value_head, values_of

__all__ = [
  'Config',
  'Model',
  'RopeScaling',
  'add_value_head',
  'export',
  'load',
  'save',
  'values_of',
  'write_description',
]
