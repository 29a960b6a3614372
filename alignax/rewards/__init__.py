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
  overlong_scores,
  summary,
  weighted_sum,
  with_left_out,
)
from alignax.rewards.endpoint import (
  endpoint_judge_scores,
  endpoint_prefer,
  endpoint_scores,
)
from alignax.rewards.host import on_host
from alignax.rewards.judge import judge_scores, make_prefer
from alignax.rewards.models import ensemble_scores, reward_model_scores
from alignax.rewards.pool import Pool
from alignax.rewards.verdicts import checker_scores

__all__ = [
  'Pool',
  'Term',
  'checker_scores',
  'endpoint_judge_scores',
  'endpoint_prefer',
  'endpoint_scores',
  'ensemble_scores',
  'judge_scores',
  'leave_out',
  'make_prefer',
  'mean_of',
  'on_host',
  'overlong_scores',
  'reward_model_scores',
  'summary',
  'weighted_sum',
  'with_left_out',
]
