"""Every loss as a function of four arrays, for tests that ask the same of all.

Advantages and weights are asked too: they are functions of arrays like losses.
The four arrays a, b, c, d stand for whatever comes first in a loss. A name of
`FROZEN` says which of them no gradient may reach.
"""

import jax.numpy as jnp

import alignax as ax


def square(*arrays):
  """[n · n] -> [n, n], for losses of sequences."""
  n = round(arrays[0].size ** 0.5)
  return [x.reshape(n, n) for x in arrays]


def logits(*arrays):
  return jnp.stack(arrays, axis=-1)


def ranks(a):
  return jnp.broadcast_to(jnp.array([2, 1, 0, 2]), (*a.shape, 4))


def vespo(a, b, c, d):
  a, b, c, d = square(a, b, c, d)
  return ax.vespo_loss(a, b, c, d > 0)


def gspo(a, b, c, d):
  a, b, c, d = square(a, b, c, d)
  return ax.clipped_policy_loss(a, b, c, ratio=ax.sequence_ratio(a, b, d > 0))


def gmpo(a, b, c, d):
  a, b, c, d = square(a, b, c, d)
  ratio = ax.geometric_mean_ratio(a, b, c, d > 0)
  return ax.clipped_policy_loss(a, b, c, ratio=ratio, clip_high=jnp.inf)


def kl(kind, **kw):
  def loss(a, b, c, d):
    old = {'old_logps': c} if kw else {}
    return ax.kl_estimate(a, b, kind=kind, **old), {}

  return loss


def cross_entropy(a, b, c, d):
  targets = jnp.zeros(a.shape, int)
  kw = {'label_smoothing': 0.1, 'z_loss': 1e-4}
  return ax.cross_entropy(logits(a, b, c, d), targets, **kw)


def gae(a, b, c, d):
  a, b, c, d = square(a, b, c, d)
  advantages, returns = ax.gae(a, b, d > 0, gamma=0.9)
  return advantages, {'gae/returns': returns}


def shaped_rewards(a, b, c, d):
  a, b, d = square(a, b, d)
  return ax.shaped_rewards(a[:, 0], b, d > 0, kl_coef=0.1), {}


def reinforce_plus_plus(a, b, c, d):
  a, d = square(a, d)
  return ax.reinforce_plus_plus(a, d > 0), {}


def groups(advantage, **kw):
  def loss(a, b, c, d):
    scores, exists = square(a, d)
    return advantage(scores, exists=exists > 0, **kw), {}

  return loss


def importance(a, b, c, d):
  a, b, d = square(a, b, d)
  return ax.truncated_importance_weights(a, b, d > 0), {}


def wpo_weights(a, b, c, d):
  a, b, d = square(a, b, d)
  return ax.wpo_weights(a, b, d > 0), {}


def ld_logps(a, b, c, d):
  a, d = square(a, d)
  return ax.ld_logps(a, d > 0, jnp.ones(len(a), int)), {}


def c_rlft_weights(a, b, c, d):
  classes, mask = square(a, d)
  classes = jnp.asarray(classes[:, 0] > 0, int)
  return ax.c_rlft_weights(mask > 0, classes), {}


def distill(loss_fn, **kw):
  # Two tokens each: the teacher is (c, d).
  return lambda a, b, c, d: loss_fn(logits(a, b), logits(c, d), **kw)


def top_k_jsd(a, b, c, d):
  teacher = jnp.minimum(logits(c, d), 0.0)[..., :1]
  ids = jnp.zeros(teacher.shape, int)
  return ax.top_k_jsd_loss(logits(a, b), teacher, ids)


PAIRS = [
  'dpo_loss',
  'ipo_loss',
  'hinge_loss',
  'robust_dpo_loss',
  'exo_pair_loss',
  'nca_pair_loss',
  'bco_pair_loss',
  'sppo_loss',
  'aot_loss',
  'apo_zero_loss',
  'apo_down_loss',
  'discopop_loss',
]
CALLS = {
  **{name: getattr(ax, name) for name in PAIRS},
  'dpo_smoothed': lambda *x: ax.dpo_loss(*x, label_smoothing=0.2),
  'dpo_forward_kl': lambda *x: ax.dpo_loss(*x, divergence='forward_kl'),
  'dpo_js': lambda *x: ax.dpo_loss(*x, divergence='js_divergence'),
  'dpo_alpha': lambda *x: ax.dpo_loss(*x, divergence='alpha_divergence'),
  'dpo_alpha_1': lambda *x: ax.dpo_loss(
    *x, divergence='alpha_divergence', alpha=1
  ),
  'aot_unpaired': lambda *x: ax.aot_loss(*x, paired=False),
  'discopop_wide': lambda *x: ax.discopop_loss(*x, tau=2.0),
  'simpo_loss': lambda a, b, c, d: ax.simpo_loss(a, b),
  'tpo_loss': lambda a, b, c, d: ax.tpo_loss(a, b),
  'cpo_loss': lambda a, b, c, d: ax.cpo_loss(a, b),
  'cpo_hinge': lambda a, b, c, d: ax.cpo_loss(a, b, kind='hinge'),
  'alphapo_loss': lambda a, b, c, d: ax.alphapo_loss(a, b),
  'alphapo_negative': lambda a, b, c, d: ax.alphapo_loss(a, b, alpha=-0.5),
  'orpo_loss': lambda a, b, c, d: ax.orpo_loss(a, b),
  'kto_loss': lambda a, b, c, d: ax.kto_loss(a, b, d > 0, c),
  'bco_loss': lambda a, b, c, d: ax.bco_loss(a, b, d > 0, c),
  'apo_zero_unpaired_loss': lambda a, b, c, d: ax.apo_zero_unpaired_loss(
    a, b, d > 0
  ),
  'xpo_loss': lambda *x: ax.xpo_loss(*x, own_wins=x[3] > 0),
  'nash_md_loss': lambda a, b, c, d: ax.nash_md_loss(a, b, c),
  'a2po_loss': ax.a2po_loss,
  'bradley_terry_loss': lambda a, b, c, d: ax.bradley_terry_loss(
    a, b, margin=c, center=0.01
  ),
  'plackett_luce_loss': lambda *x: ax.plackett_luce_loss(
    logits(*x), ranks(x[0])
  ),
  'ranking_pairs': lambda *x: ax.plackett_luce_loss(
    logits(*x), ranks(x[0]), kind='pairs'
  ),
  'regression_reward_loss': lambda a, b, c, d: ax.regression_reward_loss(a, b),
  'clipped_policy_loss': lambda a, b, c, d: ax.clipped_policy_loss(a, b, c),
  'dual_clip': lambda a, b, c, d: ax.clipped_policy_loss(
    a, b, c, dual_clip=3.0
  ),
  'gspo': gspo,
  'gmpo': gmpo,
  'policy_gradient_loss': lambda a, b, c, d: ax.policy_gradient_loss(a, b),
  'cispo_loss': lambda a, b, c, d: ax.cispo_loss(a, b, c),
  'sapo_loss': lambda a, b, c, d: ax.sapo_loss(a, b, c),
  'vespo_loss': vespo,
  'clipped_value_loss': lambda a, b, c, d: ax.clipped_value_loss(a, b, c),
  'kl_k1': kl('k1'),
  'kl_k2': kl('k2'),
  'kl_k3': kl('k3'),
  'kl_k3_times_ratio': kl('k3', old=True),
  'exact_kl': lambda a, b, c, d: (ax.exact_kl(logits(a, b), logits(c, d)), {}),
  'cross_entropy': cross_entropy,
  'nll_loss': lambda a, b, c, d: ax.nll_loss(
    a, mean_logps=b, logz=c, label_smoothing=0.1, z_loss=1e-4
  ),
  'dft_loss': lambda a, b, c, d: ax.dft_loss(a),
  'unlikelihood_loss': lambda a, b, c, d: ax.unlikelihood_loss(a),
  'forward_kl_loss': distill(ax.forward_kl_loss),
  'reverse_kl_loss': distill(ax.reverse_kl_loss),
  'generalized_jsd_loss': distill(ax.generalized_jsd_loss),
  'jsd_top_1': distill(ax.generalized_jsd_loss, top_k=1),
  'top_k_jsd_loss': top_k_jsd,
  # Not losses, but elementwise too, and asked the same.
  'gae': gae,
  'group_relative': groups(ax.group_relative),
  'group_relative_batch': groups(ax.group_relative, scale='batch'),
  'leave_one_out': groups(ax.leave_one_out),
  'reinforce_plus_plus': reinforce_plus_plus,
  'remax': lambda a, b, c, d: (ax.remax(a, b), {}),
  'shaped_rewards': shaped_rewards,
  'whiten': lambda a, b, c, d: (ax.whiten(a, d > 0), {}),
  'overlong_penalty': lambda a, b, c, d: (
    ax.overlong_penalty(a, max_length=8, cache=4),
    {},
  ),
  'truncated_importance_weights': importance,
  'wpo_weights': wpo_weights,
  'ld_logps': ld_logps,
  'c_rlft_weights': c_rlft_weights,
  'entropy': lambda a, b, c, d: (ax.entropy(logits(a, b, c, d)), {}),
}

FROZEN = {
  **{name: 'cd' for name in PAIRS},
  'dpo_forward_kl': 'cd',
  'aot_unpaired': 'cd',
  'kto_loss': 'bcd',
  'bco_loss': 'bcd',
  'apo_zero_unpaired_loss': 'bcd',
  'xpo_loss': 'cd',
  'nash_md_loss': 'bc',
  'a2po_loss': 'bcd',
  'regression_reward_loss': 'b',
  'clipped_policy_loss': 'bc',
  'gspo': 'bc',
  'gmpo': 'bc',
  'policy_gradient_loss': 'b',
  'cispo_loss': 'bc',
  'sapo_loss': 'bc',
  'vespo_loss': 'bc',
  'clipped_value_loss': 'bc',
  'kl_k1': 'b',
  'kl_k2': 'b',
  'kl_k3': 'b',
  'kl_k3_times_ratio': 'bc',
  'exact_kl': 'cd',
  'forward_kl_loss': 'cd',
  'reverse_kl_loss': 'cd',
  'generalized_jsd_loss': 'cd',
  'jsd_top_1': 'cd',
  'top_k_jsd_loss': 'cd',
  'gae': 'abcd',
  'group_relative': 'abcd',
  'group_relative_batch': 'abcd',
  'leave_one_out': 'abcd',
  'reinforce_plus_plus': 'abcd',
  'remax': 'abcd',
  'whiten': 'abcd',
  'truncated_importance_weights': 'abcd',
  'wpo_weights': 'abcd',
  'c_rlft_weights': 'abcd',
}


def call_all(*arrays):
  """{name: (loss, metrics)}: one compilation for all tests of values."""
  return {name: call(*arrays) for name, call in CALLS.items()}
