"""Decoders as pure functions, and their import, export and storage."""

from alignax.models.config import Config, RopeScaling
from alignax.models.io import export, load, save
from alignax.models.model import Model, add_value_head, values_of
from alignax.models.native import write_description

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
