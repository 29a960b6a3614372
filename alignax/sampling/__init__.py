"""Sampling from a model: one compiled program, its numbers are arrays."""

from alignax.sampling.sampler import SampleState, advance, sample, start
from alignax.sampling.settings import Sampling, make_sampling

__all__ = [
  'SampleState',
  'Sampling',
  'advance',
  'make_sampling',
  'sample',
  'start',
]
