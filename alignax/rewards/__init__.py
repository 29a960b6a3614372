"""What a response is worth, outside of the compiled step.

A score function maps `(frozen, rows)` to `(scores [B], parts {name: [B]})`:
what an algorithm learns from, and what it is made of. Rows are what
`alignax.sampling.sample` gives, and `row`, the index of a response's prompt in
the data set. A score that is NaN was not given: that response is left out.
"""

from alignax.rewards.combine import (
  Term,
  leave_out,
  mean_of,
  summary,
  weighted_sum,
)
from alignax.rewards.models import reward_model_scores

__all__ = [
  'Term',
  'leave_out',
  'mean_of',
  'reward_model_scores',
  'summary',
  'weighted_sum',
]
