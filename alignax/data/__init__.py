"""Rows from anywhere to batches: load_rows → prepare → Batches."""

from alignax.data.batches import Batches
from alignax.data.examples import (
  KINDS,
  Example,
  Examples,
  attach_ref_logps,
  shift,
)
from alignax.data.packing import best_fit
from alignax.data.prepare import prepare, report_trained_on
from alignax.data.report import Report
from alignax.data.rows import RowError, Rows
from alignax.data.sources import load_rows
from alignax.data.spans import TemplateRefused, stop_token
from alignax.data.templates import adopt_template, make_template
from alignax.data.tokenizer import load_tokenizer

__all__ = [
  'KINDS',
  'Batches',
  'Example',
  'Examples',
  'Report',
  'RowError',
  'Rows',
  'TemplateRefused',
  'adopt_template',
  'attach_ref_logps',
  'best_fit',
  'load_rows',
  'load_tokenizer',
  'make_template',
  'prepare',
  'report_trained_on',
  'shift',
  'stop_token',
]
