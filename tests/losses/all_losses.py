"""Every loss as a function of four arrays, for tests that ask the same of all.

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
}


def call_all(*arrays):
  """{name: (loss, metrics)}: one compilation for all tests of values."""
  return {name: call(*arrays) for name, call in CALLS.items()}
