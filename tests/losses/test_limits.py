"""Values known in closed form, limits, and what must not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from all_losses import CALLS, PAIRS

import alignax as ax

ZERO = jnp.zeros(3)
# APO-down lowers both on purpose, and DiscoPOP is not monotonic around zero.
UPWARD = [n for n in PAIRS if n not in ('apo_down_loss', 'discopop_loss')]


def close(a, b, **kw):
  np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6, **kw)


def gradient(loss_fn, x):
  return jax.grad(lambda x: jnp.sum(loss_fn(x)[0]))(x)


def random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


class TestRuledOut:
  """Tokens at -inf, as of a vocabulary that is padded, are not there."""

  STUDENT = jnp.array([[1.0, 2.0, -jnp.inf, 0.3]])
  TEACHER = jnp.array([[0.5, 1.0, -jnp.inf, 0.1]])
  CASES = (
    ax.forward_kl_loss, ax.reverse_kl_loss, ax.generalized_jsd_loss,
    lambda *x: (ax.exact_kl(*x), {}),
  )  # fmt: skip

  @pytest.mark.parametrize('loss_fn', CASES)
  def test_in_value_and_gradient(self, loss_fn):
    there = jnp.array([0, 1, 3])
    value = lambda x, y: jnp.sum(loss_fn(x, y)[0])
    cut = self.STUDENT[:, there], self.TEACHER[:, there]
    found = jax.value_and_grad(value)(self.STUDENT, self.TEACHER)
    expected = jax.value_and_grad(value)(*cut)
    close(found[0], expected[0])
    close(found[1][:, there], expected[1])
    assert found[1][0, 2] == 0

  def test_the_lowest_finite_logit_at_a_temperature(self):
    low = jnp.where(jnp.isinf(self.STUDENT), jnp.finfo('float32').min, 1.0)
    found = ax.generalized_jsd_loss(low, low, temperature=0.5)[0]
    close(found, 0)


class TestPairs:
  def test_dpo_at_the_reference_is_log_2(self):
    for kw in ({}, {'label_smoothing': 0.3}, {'divergence': 'forward_kl'}):
      loss, metrics = ax.dpo_loss(ZERO, ZERO, ZERO, ZERO, **kw)
      close(loss, np.log(2))
      close(metrics['rewards/accuracy'], 0.5)

  def test_dpo_by_hand(self):
    args = [jnp.array([x]) for x in (-1.0, -3.0, -2.0, -2.0)]
    loss, metrics = ax.dpo_loss(*args, beta=0.5)
    close(loss, np.log1p(np.exp(-1.0)))
    close(metrics['rewards/margin'], 1.0)
    close(metrics['rewards/accuracy'], 1.0)

  @pytest.mark.parametrize('name', ['dpo', 'robust_dpo', 'aot', 'cpo', 'simpo'])
  @pytest.mark.parametrize('share', [0.5, 0.7, -0.1])
  def test_more_than_half_of_the_labels_are_not_flipped(self, name, share):
    loss_fn = getattr(ax, f'{name}_loss')
    arrays = [ZERO] * (2 if name in ('cpo', 'simpo') else 4)
    with pytest.raises(ValueError, match=r'must be in \[0, 0.5\)'):
      loss_fn(*arrays, label_smoothing=share)

  def test_ipo_rests_at_its_margin(self):
    beta = 0.1
    at = jnp.array([1 / (2 * beta)])
    zero = jnp.zeros(1)
    loss_fn = lambda x: ax.ipo_loss(x, zero, zero, zero, beta=beta)
    close(gradient(loss_fn, at), 0)
    assert gradient(loss_fn, at + 1) > 0 > gradient(loss_fn, at - 1)

  def test_robust_dpo_is_unbiased_under_flips(self):
    a, b, c, d = random(4, 5)
    e = 0.2
    kept, _ = ax.robust_dpo_loss(a, b, c, d, label_smoothing=e)
    flipped, _ = ax.robust_dpo_loss(b, a, d, c, label_smoothing=e)
    close((1 - e) * kept + e * flipped, ax.dpo_loss(a, b, c, d)[0])

  def test_hinge_stops_at_the_margin(self):
    far = jnp.array([11.0])
    zero = jnp.zeros(1)
    loss_fn = lambda x: ax.hinge_loss(x, zero, zero, zero, beta=0.1)
    close(loss_fn(far)[0], 0)
    close(gradient(loss_fn, far), 0)
    close(gradient(loss_fn, zero), -0.1)

  def test_alpha_divergence_has_the_two_kls_as_limits(self):
    args = random(4, 5)
    alpha = lambda a: ax.dpo_loss(
      *args, divergence='alpha_divergence', alpha=a
    )[0]
    close(alpha(1), ax.dpo_loss(*args)[0])
    close(alpha(0), ax.dpo_loss(*args, divergence='forward_kl')[0])

  def test_cpo_is_dpo_with_a_uniform_reference(self):
    a, b = random(2, 5)
    zero = jnp.zeros(5)
    kw = {'beta': 0.3, 'label_smoothing': 0.1}
    close(ax.cpo_loss(a, b, **kw)[0], ax.dpo_loss(a, b, zero, zero, **kw)[0])

  def test_alphapo_has_simpo_as_limit(self):
    a, b = -jnp.abs(random(2, 5))
    simpo = ax.simpo_loss(a, b)[0]
    close(ax.alphapo_loss(a, b, alpha=0)[0], simpo)
    np.testing.assert_allclose(
      ax.alphapo_loss(a, b, alpha=1e-3)[0], simpo, rtol=1e-2
    )

  def test_orpo_still_pushes_at_certainty(self):
    # A rejected response of probability one must be pushed down.
    chosen, certain = jnp.array([-1.0]), jnp.array([0.0])
    loss_fn = lambda x: ax.orpo_loss(chosen, x)
    assert 0 < gradient(loss_fn, certain) < 1e6

  def test_aot_does_not_see_pairs_that_do_not_exist(self):
    args = random(4, 6)
    exists = jnp.array([1, 1, 0, 1, 0, 1], bool)
    for paired in (True, False):
      loss, _ = ax.aot_loss(*args, paired=paired, exists=exists)
      alone, _ = ax.aot_loss(*(x[exists] for x in args), paired=paired)
      close(loss[exists], alone)

  @pytest.mark.parametrize('name', [n for n in PAIRS if n != 'aot_loss'])
  def test_elementwise(self, name):
    args = random(4, 6)
    loss, _ = CALLS[name](*args)
    permuted, _ = CALLS[name](*args[:, ::-1])
    close(loss[::-1], permuted)
    stacked, _ = CALLS[name](*args.reshape(4, 2, 3))
    close(loss.reshape(2, 3), stacked)

  @pytest.mark.parametrize('name', UPWARD)
  def test_chosen_goes_up_and_rejected_not(self, name):
    args = [jnp.zeros(1)] * 4
    loss_fn = lambda x, y: jnp.sum(CALLS[name](x, y, *args[2:])[0])
    chosen, rejected = jax.grad(loss_fn, (0, 1))(*args[:2])
    assert chosen < 0 < rejected


class TestGroups:
  @pytest.mark.parametrize('scale', ['group', 'batch', 'none'])
  def test_equal_scores_say_nothing_whatever_is_added_to_their_std(self, scale):
    # The mean of three tenths is not a tenth.
    equal = np.full((2, 3), 0.1, np.float32)
    close(ax.group_relative(equal, scale=scale, eps=0.0), np.zeros((2, 3)))
    mixed = np.concatenate([equal[:1], [[1.0, 2.0, 3.0]]])
    found = ax.group_relative(mixed, scale='group', eps=0.0)
    close(found, [[0, 0, 0], [-1, 0, 1]])
    one = np.array([[True, False, False], [True, True, True]])
    found = ax.group_relative(mixed, exists=one, eps=0.0)
    close(found, [[0, 0, 0], [-1, 0, 1]])

  def test_a_penalty_over_no_tokens_is_refused(self):
    with pytest.raises(ValueError, match='cache is 0; give at least 1'):
      ax.overlong_penalty(np.array([4, 8]), max_length=8, cache=0)


class TestRewards:
  def test_scores_may_be_shifted_but_for_the_centring(self):
    a, b = random(2, 5)
    close(
      ax.bradley_terry_loss(a + 7, b + 7)[0], ax.bradley_terry_loss(a, b)[0]
    )
    pull = gradient(lambda x: ax.bradley_terry_loss(x, x, center=0.1), a)
    close(pull, 0.1 * 8 * a)

  def test_two_responses_are_bradley_terry(self):
    scores = random(5, 2)
    expected = ax.bradley_terry_loss(scores[:, 0], scores[:, 1])[0]
    for kind in ('plackett_luce', 'pairs'):
      ranks = jnp.array([[1, 2]] * 5)
      loss, _ = ax.plackett_luce_loss(scores, ranks, kind=kind)
      close(loss, expected)

  def test_ranking_by_hand(self):
    s = np.array([0.5, -1.0, 2.0])
    loss, metrics = ax.plackett_luce_loss(
      jnp.array([s]), jnp.array([[2, 3, 1]])
    )
    e = np.exp(s)
    expected = -np.log(e[2] / e.sum()) - np.log(e[0] / (e[0] + e[1]))
    close(loss, [expected])
    close(metrics['rewards/accuracy'], 1)

  def test_missing_candidates_and_ties(self):
    scores = random(1, 4)
    full, _ = ax.plackett_luce_loss(scores[:, :2], jnp.array([[1, 2]]))
    ragged, _ = ax.plackett_luce_loss(scores, jnp.array([[1, 2, 0, 0]]))
    close(ragged, full)
    nothing = jnp.array([[1, 1, 1, 1], [0, 0, 0, 0], [3, 0, 0, 0]])
    loss_fn = lambda x: ax.plackett_luce_loss(x, nothing)
    scores = random(3, 4)
    close(loss_fn(scores)[0], 0)
    close(gradient(loss_fn, scores), 0)
    # One worse than two that are tied: each of those beats it.
    ranks = jnp.array([[1, 1, 2]] * 3)
    loss, _ = ax.plackett_luce_loss(scores[:, :3], ranks)
    each = [
      ax.bradley_terry_loss(scores[:, i], scores[:, 2])[0] for i in (0, 1)
    ]
    close(loss, each[0] + each[1])


class TestUnpaired:
  def test_kto_at_the_reference_point(self):
    loss, _ = ax.kto_loss(ZERO, ZERO, jnp.array([1, 0, 1], bool), ZERO[0])
    close(loss, 0.5)

  def test_kto_takes_a_negative_kl_as_zero(self):
    args = *random(2, 3), jnp.array([1, 0, 1], bool)
    close(
      ax.kto_loss(*args, jnp.array(-3.0))[0], ax.kto_loss(*args, ZERO[0])[0]
    )

  def test_two_halves_are_the_paired_loss(self):
    a, b, c, d = random(4, 5)
    good, bad = jnp.ones(5, bool), jnp.zeros(5, bool)
    halves = ax.apo_zero_unpaired_loss(a, c, good)[0]
    halves += ax.apo_zero_unpaired_loss(b, d, bad)[0]
    close(halves, ax.apo_zero_loss(a, b, c, d)[0])
    halves = ax.bco_loss(a, c, good, jnp.zeros(()))[0]
    halves += ax.bco_loss(b, d, bad, jnp.zeros(()))[0]
    close(halves, ax.bco_pair_loss(a, b, c, d)[0])


class TestPolicy:
  logps = jnp.array([-1.0, -2.0, -0.5])
  advantages = jnp.array([1.0, -2.0, 3.0])

  @pytest.mark.parametrize(
    'loss_fn',
    [ax.clipped_policy_loss, ax.cispo_loss, ax.sapo_loss],
  )
  def test_at_ratio_one_it_is_reinforce(self, loss_fn):
    found = gradient(
      lambda x: loss_fn(x, self.logps, self.advantages), self.logps
    )
    close(found, -self.advantages)
    plain = lambda x: ax.policy_gradient_loss(x, self.advantages)
    close(gradient(plain, self.logps), -self.advantages)

  def test_the_clip_is_one_sided(self):
    far = jnp.array([0.5, -0.5])  # Log-ratios.
    loss_fn = lambda a: (
      lambda x: ax.clipped_policy_loss(x, jnp.zeros(2), jnp.full(2, a))
    )
    up, down = gradient(loss_fn(1.0), far), gradient(loss_fn(-1.0), far)
    assert up[0] == 0 and up[1] < 0  # Good and far up: enough.
    assert down[1] == 0 and down[0] > 0  # Bad and far down: enough.
    close(loss_fn(1.0)(far)[1]['policy/clipped'], [1, 0])

  def test_dual_clip_bounds_bad_tokens_that_became_likely(self):
    x = jnp.array([3.0])
    args = jnp.zeros(1), -jnp.ones(1)
    loss, metrics = ax.clipped_policy_loss(x, *args, dual_clip=3.0)
    close(loss, 3.0)
    close(metrics['policy/clipped'], 1.0)
    loss_fn = lambda x: ax.clipped_policy_loss(x, *args, dual_clip=3.0)
    close(gradient(loss_fn, x), 0.0)

  def test_an_advantage_for_every_row(self):
    logps, old = random(2, 3, 4)
    rows = random(3)
    loss, _ = ax.clipped_policy_loss(logps, old, rows[:, None])
    full = jnp.broadcast_to(rows[:, None], (3, 4))
    close(loss, ax.clipped_policy_loss(logps, old, full)[0])
    with pytest.raises(ValueError, match='advantages.*:, None'):
      ax.clipped_policy_loss(logps, old, rows)

  def test_value_loss_takes_the_worse_of_the_two(self):
    values, returns = jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0])
    loss, _ = ax.clipped_value_loss(values, ZERO[:2], returns, clip=0.2)
    close(loss, [0.5 * 1.8**2, 0.5])

  def test_sequence_ratios_of_packed_rows(self):
    logps, old = random(2, 1, 6)
    mask = jnp.array([[1, 1, 0, 1, 0, 0]], bool)
    segments = jnp.array([[1, 1, 1, 2, 2, 0]])
    ratio = ax.sequence_ratio(logps, old, mask, segments)
    x = np.asarray(logps - old)[0]
    first, second = np.exp(x[:2].mean()), np.exp(x[3])
    close(ratio, [[first, first, 1, second, 1, 1]])
    same = jnp.ones((1, 1))
    wide = {'clip_low': 1e9, 'clip_high': 1e9}
    mean = ax.geometric_mean_ratio(logps, old, same, mask, segments, **wide)
    close(mean, ratio)
    whole = ax.truncated_importance_weights(
      logps, old, mask, segments, high=1e9, level='sequence'
    )
    close(whole[0, 0], first**2)

  def test_empty_rows_have_ratio_one(self):
    logps, old = random(2, 2, 4) * 1e4
    mask = jnp.zeros((2, 4), bool)
    close(ax.sequence_ratio(logps, old, mask), 1)
    close(ax.truncated_importance_weights(logps, old, mask), 1)


class TestDivergences:
  def test_estimates_agree_with_the_exact_kl(self):
    logits, ref = 0.5 * random(2, 6)
    logps, ref_logps = jax.nn.log_softmax(logits), jax.nn.log_softmax(ref)
    exact = ax.exact_kl(logits, ref)
    for kind in ('k1', 'k3'):
      estimate = ax.kl_estimate(logps, ref_logps, kind=kind)
      close(jnp.sum(jnp.exp(logps) * estimate), exact)
    assert jnp.all(ax.kl_estimate(logps, ref_logps, kind='k3') >= 0)

  def test_the_gradient_of_k2_is_that_of_the_kl(self):
    logits, ref = random(2, 6)
    ref_logps = jax.nn.log_softmax(ref)

    def expected(kind):
      probs = jax.nn.softmax(logits)  # Where the samples come from: fixed.
      estimate = lambda x: ax.kl_estimate(
        jax.nn.log_softmax(x), ref_logps, kind=kind
      )
      return jax.grad(lambda x: jnp.sum(probs * estimate(x)))(logits)

    close(expected('k2'), jax.grad(ax.exact_kl)(logits, ref))
    close(expected('k1'), 0)
    forward = jax.grad(lambda x: ax.forward_kl_loss(x, ref)[0])(logits)
    close(expected('k3'), forward)

  @pytest.mark.parametrize('beta', [0.0, 0.5, 1.0])
  def test_distillation_of_oneself_is_free(self, beta):
    logits = random(4, 7)
    loss_fn = lambda x: ax.generalized_jsd_loss(x, logits, beta=beta)
    close(loss_fn(logits)[0], 0)
    close(gradient(loss_fn, logits), 0)

  def test_top_k_of_all_tokens_but_one_is_exact(self):
    student, teacher = random(2, 4, 7)
    full, _ = ax.forward_kl_loss(student, teacher)
    top, _ = ax.forward_kl_loss(student, teacher, top_k=6)
    np.testing.assert_allclose(top, full, rtol=1e-4, atol=1e-5)
    coarse, _ = ax.forward_kl_loss(student, teacher, top_k=2)
    assert jnp.all(coarse <= full + 1e-6)  # Merging tokens loses information.

  def test_stored_log_probs_are_as_good_as_logits(self):
    student, teacher = random(2, 4, 7)
    logps, ids = jax.lax.top_k(jax.nn.log_softmax(teacher), 3)
    stored, _ = ax.top_k_jsd_loss(student, logps, ids)
    close(stored, ax.generalized_jsd_loss(student, teacher, top_k=3)[0])


class TestSupervised:
  def test_smoothing_and_z_loss(self):
    logits, targets = random(5, 7), jnp.array([0, 3, 6, 2, 2])
    logps = jax.nn.log_softmax(logits)
    soft = 0.9 * jax.nn.one_hot(targets, 7) + 0.1 / 7
    expected = -jnp.sum(soft * logps, axis=-1)
    expected += 0.01 * jax.nn.logsumexp(logits, axis=-1) ** 2
    kw = {'label_smoothing': 0.1, 'z_loss': 0.01}
    close(ax.cross_entropy(logits, targets, **kw)[0], expected)

  def test_shifted_logits_change_nothing(self):
    logits, targets = random(5, 7), jnp.zeros(5, int)
    close(
      ax.cross_entropy(logits + 50, targets)[0],
      ax.cross_entropy(logits, targets)[0],
    )

  def test_what_a_term_needs_is_asked_for(self):
    with pytest.raises(ValueError, match='mean_logps'):
      ax.nll_loss(ZERO, label_smoothing=0.1)
    with pytest.raises(ValueError, match='logz'):
      ax.nll_loss(ZERO, z_loss=0.1)

  def test_unlikelihood_pushes_certain_tokens_down(self):
    for logp in (-1e-9, 0.0):
      x = jnp.array([logp])
      assert 1e3 < gradient(ax.unlikelihood_loss, x) < 1e7
    close(ax.unlikelihood_loss(jnp.log(jnp.array([0.25])))[0], -np.log(0.75))


class TestModifiers:
  def test_ld_is_a_plain_sum_up_to_the_shared_length(self):
    logps = random(2, 5)
    mask = jnp.array([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0]], bool)
    plain = ax.sequence_logps(logps, mask)
    close(ax.ld_logps(logps, mask, jnp.array([3, 3])), plain)
    close(ax.ld_logps(logps, mask, jnp.array([0, 0]), alpha=1.0), plain)
    cut = ax.ld_logps(logps, mask, jnp.array([2, 2]), alpha=0.0)
    close(cut[0], logps[0, 1] + logps[0, 2])
    segments = jnp.array([[1, 1, 1, 2, 2], [1, 1, 0, 0, 0]])
    packed = ax.ld_logps(
      logps, mask, jnp.array([[1, 1], [1, 1]]), segments, 2, alpha=0.0
    )
    close(packed, [[logps[0, 1], logps[0, 4]], [logps[1, 0], 0]])

  def test_wpo_weights_of_no_tokens(self):
    weights = ax.wpo_weights(
      random(2, 3), random(2, 3), jnp.zeros((2, 3), bool)
    )
    close(weights, 1)
