"""Sampling from a model: one compiled program, its numbers are arrays."""

from alignax.sampling.prompts import left_pad
from alignax.sampling.sampler import (
  SampleState,
  advance,
  num_tokens,
  repeat_rows,
  sample,
  start,
)
from alignax.sampling.settings import Sampling, make_sampling
from alignax.sampling.text import Response, encode, generate

__all__ = [
  'Response',
  'SampleState',
  'Sampling',
  'advance',
  'encode',
  'generate',
  'left_pad',
  'make_sampling',
  'num_tokens',
  'repeat_rows',
  'sample',
  'start',
]
