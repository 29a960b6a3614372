"""Losses: arrays in, `(loss, metrics)` of one shape out, reduced by nobody."""

# ruff: noqa: F401  All of it is for users.
from alignax.losses.policy import (
  clipped_policy_loss,
  clipped_value_loss,
  kl_estimate,
  policy_gradient_loss,
)
from alignax.losses.preference import dpo_loss
from alignax.losses.reward import bradley_terry_loss
from alignax.losses.supervised import cross_entropy, nll_loss
