"""Losses: arrays in, `(loss, metrics)` of one shape out, reduced by nobody."""

# ruff: noqa: F401  All of it is for users.
from alignax.losses.anchored import (
  aot_loss,
  apo_down_loss,
  apo_zero_loss,
  bco_pair_loss,
  nca_pair_loss,
  sppo_loss,
)
from alignax.losses.distillation import (
  forward_kl_loss,
  generalized_jsd_loss,
  reverse_kl_loss,
  top_k_jsd_loss,
)
from alignax.losses.divergences import exact_kl, kl_estimate
from alignax.losses.modifiers import ld_logps, wpo_weights
from alignax.losses.online import a2po_loss, nash_md_loss, xpo_loss
from alignax.losses.policy import (
  cispo_loss,
  clipped_policy_loss,
  policy_gradient_loss,
  sapo_loss,
  vespo_loss,
)
from alignax.losses.preference import (
  discopop_loss,
  dpo_loss,
  exo_pair_loss,
  hinge_loss,
  ipo_loss,
  robust_dpo_loss,
)
from alignax.losses.ratios import (
  geometric_mean_ratio,
  sequence_ratio,
  truncated_importance_weights,
)
from alignax.losses.reference_free import (
  alphapo_loss,
  cpo_loss,
  orpo_loss,
  simpo_loss,
  tpo_loss,
)
from alignax.losses.reward import (
  bradley_terry_loss,
  plackett_luce_loss,
  regression_reward_loss,
)
from alignax.losses.supervised import (
  cross_entropy,
  dft_loss,
  nll_loss,
  unlikelihood_loss,
)
from alignax.losses.unpaired import (
  apo_zero_unpaired_loss,
  bco_loss,
  kto_loss,
)
from alignax.losses.value import clipped_value_loss
