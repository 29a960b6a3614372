"""What holds for every loss: shapes, dtypes, finiteness, transformations."""

import functools
import inspect
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from all_losses import CALLS, FROZEN, PAIRS, call_all

import alignax as ax

EXTREMES = (-1e4, -400.0, -1.0, -1e-9, 0.0, 400.0, 1e4)
ISSUE_NAMES = """
  cross_entropy dft_loss c_rlft_weights unlikelihood_loss
  bradley_terry_loss plackett_luce_loss regression_reward_loss
  dpo_loss ipo_loss hinge_loss robust_dpo_loss exo_pair_loss nca_pair_loss
  bco_pair_loss sppo_loss aot_loss apo_zero_loss apo_down_loss discopop_loss
  simpo_loss cpo_loss alphapo_loss orpo_loss tpo_loss
  kto_loss bco_loss apo_zero_unpaired_loss
  clipped_policy_loss policy_gradient_loss cispo_loss sapo_loss vespo_loss
  sequence_ratio geometric_mean_ratio truncated_importance_weights
  kl_estimate exact_kl entropy clipped_value_loss
  gae group_relative leave_one_out reinforce_plus_plus remax shaped_rewards
  whiten overlong_penalty
  forward_kl_loss reverse_kl_loss generalized_jsd_loss top_k_jsd_loss
  wpo_weights ld_logps xpo_loss nash_md_loss a2po_loss
  token_logps sequence_logps sequence_lengths head_stats fused_logps
  per_token per_sequence per_budget per_example
"""


def ordinary(dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), 4)
  return [jax.random.normal(key, (9,)).astype(dtype) for key in keys]


@functools.cache
def extreme_results():
  """Values and gradients over all combinations of extremes, compiled once."""
  grid = np.array(list(itertools.product(EXTREMES, repeat=4)), np.float32)

  def one(call, arrays):
    loss, vjp, metrics = jax.vjp(call, *arrays, has_aux=True)
    return (loss, metrics), vjp(jnp.ones_like(loss))

  @jax.jit
  def run(*arrays):
    return {name: one(call, arrays) for name, call in CALLS.items()}

  return jax.device_get(run(*grid.T))


@pytest.mark.parametrize('name', CALLS)
def test_finite_at_extremes(name):
  chex.assert_tree_all_finite(extreme_results()[name])


@pytest.mark.parametrize('name', FROZEN)
def test_no_gradient_into_what_is_frozen(name):
  _, gradients = extreme_results()[name]
  for letter, gradient in zip('abcd', gradients):
    if letter in FROZEN[name]:
      np.testing.assert_array_equal(gradient, 0.0, err_msg=letter)


def test_metrics_have_the_shape_of_the_loss():
  for name, (loss, metrics) in jax.eval_shape(call_all, *ordinary()).items():
    for key, metric in metrics.items():
      assert metric.shape == loss.shape, (name, key)
      assert '/' in key, (name, key)


def test_bfloat16_gives_float32():
  for result in jax.eval_shape(call_all, *ordinary(jnp.bfloat16)).values():
    chex.assert_type(jax.tree.leaves(result), jnp.float32)


# A rounding of the inputs is no rounding of what is computed from them.
@pytest.mark.parametrize('name', [
  'dpo_loss', 'ipo_loss', 'simpo_loss', 'kto_loss', 'clipped_policy_loss',
  'nll_loss', 'kl_k3', 'forward_kl_loss',
])  # fmt: skip
def test_bfloat16_has_the_value_of_the_same_numbers_in_float32(name):
  grid = np.array(list(itertools.product(EXTREMES, repeat=4)), np.float32)
  narrow = [jnp.asarray(x, jnp.bfloat16) for x in grid.T]
  found = jax.jit(CALLS[name])(*narrow)
  wide = jax.jit(CALLS[name])(*(x.astype(jnp.float32) for x in narrow))
  chex.assert_tree_all_finite(found)
  chex.assert_trees_all_close(found, wide, rtol=1e-6, atol=1e-6)


class Variants(chex.TestCase, parameterized.TestCase):
  @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
  def test_all_losses(self):
    out = self.variant(call_all)(*ordinary())
    chex.assert_tree_all_finite(out)
    expected = _reference()
    chex.assert_trees_all_close(out, expected, rtol=2e-5, atol=1e-5)


@functools.cache
def _reference():
  return call_all(*ordinary())


@pytest.mark.parametrize('name', [*PAIRS, 'xpo_loss', 'a2po_loss'])
def test_a_shape_mismatch_names_both_shapes(name):
  args = [jnp.zeros(3), jnp.zeros(4), jnp.zeros(3), jnp.zeros(3)]
  call = CALLS[name]
  with pytest.raises((AssertionError, ValueError)) as error:
    call(*args)
  assert '(3,)' in str(error.value) and '(4,)' in str(error.value)


@pytest.mark.parametrize(
  'call',
  [
    lambda x, y: ax.clipped_policy_loss(x, y, x),
    lambda x, y: ax.clipped_policy_loss(x, x, y),
    lambda x, y: ax.policy_gradient_loss(x, y),
    lambda x, y: ax.simpo_loss(x, y),
    lambda x, y: ax.kto_loss(x, x, y, jnp.zeros(())),
    lambda x, y: ax.bradley_terry_loss(x, y),
    lambda x, y: ax.clipped_value_loss(x, y, x),
    lambda x, y: ax.kl_estimate(x, y),
    lambda x, y: ax.plackett_luce_loss(x, y),
  ],
)
def test_mismatches_of_other_losses(call):
  with pytest.raises((AssertionError, ValueError)) as error:
    call(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
  assert '(2, 3)' in str(error.value) and '(2, 4)' in str(error.value)


X, INTS, BOOLS = jnp.ones((2, 3)), jnp.ones((2, 3), int), jnp.ones((2, 3), bool)
WRONG_TYPES = {
  'logps': [
    lambda: ax.clipped_policy_loss(INTS, X, X),
    lambda: ax.policy_gradient_loss(BOOLS, X),
    lambda: ax.sequence_ratio(INTS, X, BOOLS),
    lambda: ax.kl_estimate(INTS, X),
    lambda: ax.dft_loss(INTS),
    lambda: ax.kto_loss(INTS, X, BOOLS, 0.0),
  ],
  'old_logps': [lambda: ax.cispo_loss(X, BOOLS, X)],
  'ref_logps': [lambda: ax.nash_md_loss(X, INTS, X)],
  'sampling_logps': [lambda: ax.truncated_importance_weights(X, INTS, BOOLS)],
  'chosen_logps': [
    lambda: ax.dpo_loss(INTS, X, X, X),
    lambda: ax.cpo_loss(BOOLS, X),
  ],
  'ref_rejected_logps': [lambda: ax.dpo_loss(X, X, X, BOOLS)],
  'rejected_mean_logps': [lambda: ax.simpo_loss(X, INTS)],
  'logz': [lambda: ax.nll_loss(X, logz=INTS, z_loss=1.0)],
  'chosen_scores': [lambda: ax.bradley_terry_loss(INTS, X)],
  'scores': [
    lambda: ax.plackett_luce_loss(INTS, INTS),
    lambda: ax.regression_reward_loss(INTS, X),
  ],
  'values': [lambda: ax.gae(X, INTS, BOOLS)],
  'old_values': [lambda: ax.clipped_value_loss(X, INTS, X)],
  'student_logits': [lambda: ax.forward_kl_loss(INTS, X)],
  'ranks': [
    lambda: ax.plackett_luce_loss(X, X),
    lambda: ax.plackett_luce_loss(X, BOOLS),
  ],
  'desirable': [lambda: ax.kto_loss(X, X, X, 0.0)],
  'own_wins': [lambda: ax.xpo_loss(X, X, X, X, X)],
  'exists': [
    lambda: ax.aot_loss(X, X, X, X, exists=X),
    lambda: ax.group_relative(X, exists=X),
    lambda: ax.per_example(X),
  ],
  'classes': [lambda: ax.c_rlft_weights(BOOLS, X[:, 0])],
  'mask': [
    lambda: ax.gae(X, X, X),
    lambda: ax.whiten(X, X),
    lambda: ax.shaped_rewards(X[:, 0], X, X, kl_coef=0.1),
    lambda: ax.vespo_loss(X, X, X, X),
    lambda: ax.sequence_ratio(X, X, X),
    lambda: ax.wpo_weights(X, X, X),
    lambda: ax.ld_logps(X, X, INTS[:, 0]),
    lambda: ax.per_token(X),
    lambda: ax.per_sequence(X),
    lambda: ax.per_budget(X, length=3),
  ],
}


@pytest.mark.parametrize('name', WRONG_TYPES)
def test_a_wrong_type_names_the_argument(name):
  for call in WRONG_TYPES[name]:
    with pytest.raises(TypeError, match=f'^{name} holds .* are expected'):
      call()


def test_types_that_are_as_good():
  """Rewards are often counted, masks often integers, anchors Python numbers."""
  same = chex.assert_trees_all_equal
  same(ax.gae(INTS, X, INTS), ax.gae(X, X, BOOLS))
  same(ax.per_token(INTS), ax.per_token(BOOLS))
  same(ax.group_relative(INTS), ax.group_relative(X))
  same(ax.reinforce_plus_plus(INTS, INTS), ax.reinforce_plus_plus(X, BOOLS))
  same(ax.policy_gradient_loss(X, INTS), ax.policy_gradient_loss(X, X))
  same(ax.regression_reward_loss(X, INTS), ax.regression_reward_loss(X, X))
  same(ax.kto_loss(X, X, INTS, 0), ax.kto_loss(X, X, BOOLS, jnp.zeros(())))
  same(ax.bco_loss(X, X, BOOLS, 1), ax.bco_loss(X, X, BOOLS, X))
  same(
    ax.bradley_terry_loss(X, X, margin=1), ax.bradley_terry_loss(X, X, margin=X)
  )


@pytest.mark.parametrize('name', ISSUE_NAMES.split())
def test_exported_and_documented(name):
  exported = getattr(ax, name)
  assert inspect.getdoc(exported)


@pytest.mark.parametrize(
  'name', [name for name in dir(ax) if name.endswith('_loss')]
)
def test_losses_cite_and_take_keywords(name):
  loss = getattr(ax, name)
  doc = inspect.getdoc(loss)
  assert 'http' in doc or '`' in doc.splitlines()[0], 'cites nothing'
  for parameter in inspect.signature(loss).parameters.values():
    if parameter.annotation in (float, bool, str, int):
      assert parameter.kind == parameter.KEYWORD_ONLY, parameter.name


def test_unknown_names_list_the_known_ones():
  x = jnp.zeros(2)
  with pytest.raises(ValueError, match='forward_kl'):
    ax.dpo_loss(x, x, x, x, divergence='forwards')
  with pytest.raises(ValueError, match='k1'):
    ax.kl_estimate(x, x, kind='k4')
  with pytest.raises(ValueError, match=r'\(0, 0.5\)'):
    ax.exo_pair_loss(x, x, x, x, label_smoothing=0.0)
