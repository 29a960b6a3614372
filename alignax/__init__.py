"""Alignment of language models: losses, advantages and log-probs on arrays.

Importing this pulls in jax and chex only. Models, data and training are in the
submodules: `alignax.models`, `alignax.data`, `alignax.algorithms`, ...
"""

# ruff: noqa: F401  All of it is for users.
from alignax import advantages, logps, losses, weights
from alignax.advantages import (
  gae,
  group_relative,
  leave_one_out,
  shaped_rewards,
  whiten,
)
from alignax.logps import (
  HeadStats,
  entropy,
  fused_logps,
  head_stats,
  logit_stats,
  sequence_lengths,
  sequence_logps,
  token_logps,
)
from alignax.losses import (
  bradley_terry_loss,
  clipped_policy_loss,
  clipped_value_loss,
  cross_entropy,
  dpo_loss,
  kl_estimate,
  nll_loss,
  policy_gradient_loss,
)
from alignax.weights import per_budget, per_example, per_sequence, per_token
