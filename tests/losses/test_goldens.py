"""Every loss against published code: values and gradients, case by case.

`pytest -k dpo_hinge` runs the cases of that name. A case is a function from the
inputs to named outputs; gradients are taken of its 'loss'. Inputs of whole
sequences come in up to three ways, and a gradient says by its name which is
meant: token log-probs [B, T], their sums, or their means.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alignax as ax

PAIR = ('chosen', 'rejected', 'ref_chosen', 'ref_rejected')
LEVELS = {'_seq_logps': 'sums', '_mean_logps': 'means', '_logps': 'tokens'}


@functools.cache
def goldens():
  path = pathlib.Path(__file__).parents[1] / 'golden' / 'trl.npz'
  cases = {}
  with np.load(path, allow_pickle=False) as z:
    for key in z.files:
      name, part, rest = key.split('/', 2)
      case = cases.setdefault(name, {'in': {}, 'out': {}, 'hp': {}})
      case[part][rest] = z[key].item() if part == 'hp' else z[key]
  return cases


def sequence(x, name, level, mean=False):
  """Log-probs of whole sequences, from the inputs that `level` names."""
  name += '_' if name else ''
  mask = x[name.removeprefix('ref_').removeprefix('old_') + 'mask']
  lengths = jnp.maximum(ax.sequence_lengths(mask), 1)
  if level == 'means':
    means = x[name + 'mean_logps']
    return means if mean else means * lengths
  if level == 'sums':
    sums = x[name + 'seq_logps']
  else:
    sums = ax.sequence_logps(x[name + 'logps'], mask)
  return sums / lengths if mean else sums


def keywords(hp, *names):
  return {name: hp[name] for name in names if name in hp}


def mean_of(loss):
  return {'unreduced': loss, 'loss': jnp.sum(ax.per_example(len(loss)) * loss)}


def pairs(loss_fn, *names, mean=False, **kw):
  def case(x, hp, level):
    args = [sequence(x, name, level, mean) for name in PAIR]
    return mean_of(loss_fn(*args, **keywords(hp, *names), **kw)[0])

  return case


def free_pairs(loss_fn, *names, mean=True, nll=None, **kw):
  """A loss without reference, and the log-likelihood that comes with it."""

  def case(x, hp, level):
    args = [sequence(x, name, level, mean) for name in PAIR[:2]]
    out = mean_of(loss_fn(*args, **keywords(hp, *names), **kw)[0])
    if nll:
      tokens = jnp.sum(ax.sequence_lengths(x[f'{nll}_mask']))
      out['nll'] = -jnp.sum(sequence(x, nll, level)) / tokens
      out['loss'] += hp.get('cpo_alpha', 1.0) * out['nll']
    return out

  return case


def tokens(loss_fn, weigh):
  """A loss of tokens, reduced by weights."""

  def case(x, hp, level):
    loss = jnp.where(x['mask'], loss_fn(x, hp), 0.0)
    return {'unreduced': loss, 'loss': jnp.sum(weigh(x, hp) * loss)}

  return case


def per_token(x, hp):
  return ax.per_token(x['mask'])


def per_sequence(x, hp):
  return ax.per_sequence(x['mask'])


def per_budget(x, hp):
  return ax.per_budget(x['mask'], length=hp.get('max_length', 1))


def clipped(x, hp, **kw):
  return ax.clipped_policy_loss(
    x['logps'],
    x['old_logps'],
    x['advantages'][:, None],
    dual_clip=hp.get('delta'),
    **keywords(hp, 'clip_low', 'clip_high'),
    **kw,
  )[0]


def gspo(x, hp):
  ratio = ax.sequence_ratio(x['logps'], x['old_logps'], x['mask'])
  return clipped(x, hp, ratio=ratio)


def gmpo(x, hp, level):
  args = x['logps'], x['old_logps'], x['advantages'][:, None]
  clips = keywords(hp, 'clip_low', 'clip_high')
  ratio = ax.geometric_mean_ratio(*args, x['mask'], **clips)
  inf = float('inf')
  loss, _ = ax.clipped_policy_loss(
    *args, ratio=ratio, clip_low=inf, clip_high=inf
  )
  # The same at every token, and all sequences have some.
  loss = jnp.sum(loss, axis=1, where=x['mask']) / jnp.sum(x['mask'], axis=1)
  return mean_of(loss)


def grpo_kl(x, hp):
  old_logps = x['old_logps'] if hp['kl_times_ratio'] else None
  kl = ax.kl_estimate(x['logps'], x['ref_logps'], old_logps=old_logps)
  return clipped(x, hp) + hp['beta'] * kl


def cispo(x, hp):
  args = x['logps'], x['old_logps'], x['advantages'][:, None]
  return ax.cispo_loss(*args, cap=hp['cap'])[0]


def sapo(x, hp):
  return ax.sapo_loss(
    x['logps'],
    x['old_logps'],
    x['advantages'][:, None],
    tau_positive=hp['tau_pos'],
    tau_negative=hp['tau_neg'],
  )[0]


def vespo(x, hp):
  return ax.vespo_loss(
    x['logps'],
    x['old_logps'],
    x['advantages'][:, None],
    x['mask'],
    k_positive=hp['k_pos'],
    lam_positive=hp['lambda_pos'],
    k_negative=hp['k_neg'],
    lam_negative=hp['lambda_neg'],
  )[0]


def rloo(x, hp, level):
  new, old = [sequence(x, name, level) for name in ('', 'old')]
  clips = keywords(hp, 'clip_low', 'clip_high')
  return mean_of(ax.clipped_policy_loss(new, old, x['advantages'], **clips)[0])


def a2po(x, hp, level):
  new, ref = [sequence(x, name, level) for name in ('', 'ref')]
  loss, _ = ax.a2po_loss(
    new, ref, x['rewards'], x['optimal_values'], beta=hp['beta']
  )
  return mean_of(loss)


def lm_head(x, hp, level):
  stats = ax.head_stats(
    x['hidden'],
    x['weight'],
    x['targets'],
    jnp.ones(x['targets'].shape, bool),
    temperature=hp['temperature'],
    softcap=hp.get('softcap'),
    entropy=True,
    chunk=4,
  )
  out = mean_of(ax.nll_loss(stats.logps)[0])
  return out | {'logps': stats.logps, 'entropy': stats.entropy}


def reward(x, hp, level):
  loss, _ = ax.bradley_terry_loss(
    x['chosen_scores'],
    x['rejected_scores'],
    margin=x.get('margins', 0.0),
    center=hp.get('centre', 0.0),
  )
  return mean_of(loss)


def aot(x, hp, level, *, paired):
  args = [sequence(x, name, level) for name in PAIR]
  hp = keywords(hp, 'beta', 'label_smoothing')
  loss, _ = ax.aot_loss(*args, paired=paired, **hp)
  return {'loss': jnp.mean(loss)}


def ld(x, hp, level):
  masks = [x['chosen_mask'], x['rejected_mask']] * 2
  shared = jnp.minimum(*map(ax.sequence_lengths, masks[:2]))
  args = [
    ax.ld_logps(x[f'{name}_logps'], mask, shared, alpha=hp['ld_alpha'])
    for name, mask in zip(PAIR, masks)
  ]
  return mean_of(ax.dpo_loss(*args, beta=hp['beta'])[0])


def wpo(x, hp, level):
  loss, _ = ax.dpo_loss(
    *[sequence(x, name, level) for name in PAIR], beta=hp['beta']
  )
  weights = [
    ax.wpo_weights(
      x[f'{name}_logps'], x[f'{name}_log_sum_sq_probs'], x[f'{name}_mask']
    )
    for name in PAIR[:2]
  ]
  return mean_of(weights[0] * weights[1] * loss)


def kto(x, hp, level):
  args = [sequence(x, name, level) for name in ('', 'ref')]
  names = 'beta', 'desirable_weight', 'undesirable_weight'
  if 'kl' not in x:
    loss_fn = ax.apo_zero_unpaired_loss
    return mean_of(loss_fn(*args, x['desirable'], **keywords(hp, *names))[0])
  # The estimate itself may be negative: the loss takes it as zero.
  kl = [sequence(x, name, 'tokens') for name in ('kl', 'ref_kl')]
  kl = jnp.mean(kl[0] - kl[1])
  loss, metrics = ax.kto_loss(*args, x['desirable'], kl, **keywords(hp, *names))
  return mean_of(loss) | {'kl': metrics['policy/kl'][0]}


def bco(x, hp, level):
  chosen, rejected, *ref = [sequence(x, name, level) for name in PAIR]
  kw = {'delta': x['delta'], 'beta': hp['beta']}
  good, bad = jnp.ones(len(chosen), bool), jnp.zeros(len(chosen), bool)
  chosen, _ = ax.bco_loss(chosen, ref[0], good, **kw)
  rejected, _ = ax.bco_loss(rejected, ref[1], bad, **kw)
  return {
    'unreduced_chosen': chosen,
    'unreduced_rejected': rejected,
    'loss': jnp.mean(jnp.concatenate([chosen, rejected])),
  }


def ppo_loss(x, hp, level):
  args = x['logps'], x['old_logps'], x['advantages']
  policy, _ = ax.clipped_policy_loss(
    *args, clip_low=hp['clip'], clip_high=hp['clip']
  )
  value, _ = ax.clipped_value_loss(
    x['values'], x['old_values'], x['returns'], clip=hp['value_clip']
  )
  policy_loss = jnp.sum(ax.per_token(x['mask']) * policy)
  value_loss = jnp.sum(ax.per_token(x['value_mask']) * value)
  return {
    'unreduced_policy': jnp.where(x['mask'], policy, 0.0),
    'unreduced_value': jnp.where(x['value_mask'], value, 0.0),
    'policy_loss': policy_loss,
    'value_loss': value_loss,
    'loss': policy_loss + hp['vf_coef'] * value_loss,
  }


def ppo_rollout(x, hp, level):
  """TRL's reward comes one step after the last token, where there is room.

  That is `shaped_rewards` over the value mask: one token longer, with no KL
  there. alignax's own default is the case `..._score_on_last_token`.
  """
  mask = x.get('value_mask', x['mask'])
  kl = ax.kl_estimate(x['logps'], x['ref_logps'], kind=hp['kl_kind'])
  kl = jnp.where(x['mask'], kl, 0.0)
  rewards = ax.shaped_rewards(x['scores'], kl, mask, kl_coef=hp['kl_coef'])
  if hp.get('whiten_rewards'):
    rewards = ax.whiten(rewards, mask, shift=False)
  advantages, returns = ax.gae(
    rewards, x['values'], mask, gamma=hp['gamma'], lam=hp['lam']
  )
  return {
    'kl': kl,
    'rewards': rewards,
    'returns': returns,
    'advantages_raw': advantages,
    'advantages': ax.whiten(advantages, x['mask']),
  }


def gae(x, hp, level):
  advantages, returns = ax.gae(
    x['rewards'], x['values'], x['mask'], gamma=hp['gamma'], lam=hp['lam']
  )
  return {'advantages': advantages, 'returns': returns}


def whiten(x, hp, level):
  return {
    'whitened': ax.whiten(x['x'], x['mask'], eps=hp['eps']),
    'whitened_keep_mean': ax.whiten(
      x['x'], x['mask'], shift=False, eps=hp['eps']
    ),
  }


def group_relative(x, hp, level, *, scale):
  advantages = ax.group_relative(
    x['rewards'], scale=scale, eps=hp['eps'], exists=x.get('valid')
  )
  return {'advantages': advantages}


def leave_one_out(x, hp, level):
  scores = x['rewards']
  if hp['kl_coef']:
    kl = ax.kl_estimate(x['old_logps'], x['ref_logps'], kind='k1')
    scores = scores - hp['kl_coef'] * ax.sequence_logps(kl, x['mask'])
  advantages = ax.leave_one_out(scores)
  if 'eps' in hp:
    # Normalised over the batch: groups are already centred, so this is
    # `group_relative` of one group that holds them all.
    flat = advantages.reshape(1, -1)
    advantages = ax.group_relative(flat, eps=hp['eps']).reshape(scores.shape)
  return {'advantages': advantages}


def importance(x, hp, level, *, by, outside):
  ratio = ax.truncated_importance_weights(
    x['old_logps'],
    x['sampling_logps'],
    x['mask'],
    low=hp['clip_min'],
    high=hp['clip_max'],
    level=by,
    outside=outside,
  )
  # alignax gives every token the weight of its sequence; TRL one a sequence.
  return {'ratio': ratio if by == 'token' else ratio[:, :1]}


def overlong_penalty(x, hp, level):
  sizes = {'max_length': hp['max_length'], 'cache': hp['cache']}
  return {'penalty': ax.overlong_penalty(x['lengths'], **sizes)}


def online_dpo(x, hp, level):
  names = 'first', 'second', 'ref_first', 'ref_second'
  first, second, *ref = [sequence(x, name, level) for name in names]
  wins = x['first_scores'] >= x['second_scores']
  choose = lambda a, b: (jnp.where(wins, a, b), jnp.where(wins, b, a))
  loss, _ = ax.dpo_loss(*choose(first, second), *choose(*ref), beta=hp['beta'])
  return mean_of(loss)


def xpo(x, hp, level):
  names = 'own', 'other', 'ref_own', 'ref_other'
  args = [sequence(x, name, level) for name in names]
  kw = keywords(hp, 'beta', 'alpha')
  return mean_of(ax.xpo_loss(*args, x['own_wins'], **kw)[0])


def nash_md(x, hp, level):
  win_probs = x['win_probs'][:, None]
  loss, _ = ax.nash_md_loss(
    x['logps'], x['ref_logps'], win_probs, beta=hp['beta']
  )
  return mean_of(jnp.sum(loss, axis=1, where=x['mask']))


def gkd(x, hp):
  kw = keywords(hp, 'beta', 'temperature')
  args = x['student_logits'], x['teacher_logits']
  if hp['beta'] in (0, 1):
    loss_fn = ax.reverse_kl_loss if hp['beta'] else ax.forward_kl_loss
    return loss_fn(*args, temperature=kw['temperature'])[0]
  return ax.generalized_jsd_loss(*args, **kw)[0]


def sft(x, hp):
  return ax.nll_loss(x['logps'])[0]


def dft(x, hp):
  return ax.dft_loss(x['logps'])[0]


BETA_AND = ('beta', 'label_smoothing', 'divergence', 'alpha', 'tau')
dpo = pairs(ax.dpo_loss, *BETA_AND)
simpo = free_pairs(ax.simpo_loss, 'beta', 'gamma')
CASES = {
  'sft': tokens(sft, per_token),
  'dft': tokens(dft, per_token),
  'lm_head': lm_head,
  'reward': reward,
  'dpo_sigmoid': dpo,
  'dpo_conservative': dpo,
  'dpo_hinge': pairs(ax.hinge_loss, 'beta'),
  # TRL's IPO is of means; ours is the paper's, and either by its arguments.
  'dpo_ipo': pairs(ax.ipo_loss, 'beta', mean=True),
  'ipo_paper': pairs(ax.ipo_loss, 'beta'),
  'dpo_robust': pairs(ax.robust_dpo_loss, 'beta', 'label_smoothing'),
  'dpo_exo_pair': pairs(ax.exo_pair_loss, 'beta', 'label_smoothing'),
  'dpo_nca_pair': pairs(ax.nca_pair_loss, 'beta'),
  'dpo_bco_pair': pairs(ax.bco_pair_loss, 'beta'),
  'dpo_sppo_hard': pairs(ax.sppo_loss, 'beta'),
  'dpo_aot': functools.partial(aot, paired=True),
  'dpo_aot_unpaired': functools.partial(aot, paired=False),
  'dpo_apo_zero': pairs(ax.apo_zero_loss, 'beta'),
  'dpo_apo_down': pairs(ax.apo_down_loss, 'beta'),
  'dpo_discopop': pairs(ax.discopop_loss, 'beta', 'tau'),
  'dpo_sigmoid_norm': pairs(ax.dpo_loss, 'beta', mean=True),
  'dpo_reverse_kl': dpo,
  'dpo_forward_kl': dpo,
  'dpo_js_divergence': dpo,
  'dpo_alpha_divergence': dpo,
  'dpo_ld': ld,
  'dpo_wpo': wpo,
  'cpo_sigmoid': free_pairs(
    ax.cpo_loss, 'beta', 'label_smoothing', mean=False, nll='chosen'
  ),
  'cpo_sigmoid__no_nll': free_pairs(
    ax.cpo_loss, 'beta', 'label_smoothing', mean=False
  ),
  'cpo_hinge': free_pairs(ax.cpo_loss, 'beta', mean=False, kind='hinge'),
  'cpo_simpo': simpo,
  'alphapo': free_pairs(ax.alphapo_loss, 'beta', 'gamma', 'alpha'),
  'orpo': free_pairs(ax.orpo_loss, 'beta', nll='chosen'),
  'tpo_l': free_pairs(ax.tpo_loss, 'beta', 'gamma', nll='gold'),
  'kto': kto,
  'apo_zero_unpaired': kto,
  'bco': bco,
  'grpo': tokens(clipped, per_sequence),
  'bnpo': tokens(clipped, per_token),
  'dr_grpo': tokens(clipped, per_budget),
  'dapo': tokens(clipped, per_token),
  'luspo': tokens(clipped, per_budget),
  'grpo_delta': tokens(clipped, per_sequence),
  'gspo': tokens(gspo, per_sequence),
  'gmpo': gmpo,
  'cispo': tokens(cispo, per_token),
  'sapo': tokens(sapo, per_sequence),
  'vespo': tokens(vespo, per_token),
  'grpo_kl_k3': tokens(grpo_kl, per_sequence),
  'rloo': rloo,
  'a2po': a2po,
  **{
    f'importance_{by}_{outside}': functools.partial(
      importance, by=by, outside=outside
    )
    for by in ('token', 'sequence')
    for outside in ('truncate', 'mask')
  },
  **{
    f'grpo_advantages_{scale}': functools.partial(group_relative, scale=scale)
    for scale in ('group', 'batch', 'none')
  },
  'rloo_advantages': leave_one_out,
  'overlong_penalty': overlong_penalty,
  'whiten': whiten,
  'gae': gae,
  'ppo_rollout': ppo_rollout,
  'ppo_loss': ppo_loss,
  'online_dpo': online_dpo,
  'xpo': xpo,
  'nash_md': nash_md,
  'gkd': tokens(gkd, per_token),
}
# Packing is the data layer's; see tests/data.
ELSEWHERE = ('bfd', 'bfd__truncates')
NAMES = [name for name in goldens() if name not in ELSEWHERE]


def of_dtype(inputs, dtype):
  cast = lambda x: x.astype(dtype) if x.dtype.kind == 'f' else x
  return {name: jnp.asarray(cast(x)) for name, x in inputs.items()}


def check(name, dtype, rtol, atol):
  case = goldens()[name]
  call = CASES.get(name) or CASES[name.split('__')[0]]
  x, hp, expected = of_dtype(case['in'], dtype), case['hp'], case['out']
  compare = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)

  out = call(x, hp, 'tokens')
  missing = {key for key in expected if not key.startswith('grad/')} - set(out)
  assert not missing
  for key, value in out.items():
    if key in expected:
      assert value.dtype == dtype, key
      compare(value, expected[key], err_msg=key)

  gradients = {
    key.removeprefix('grad/'): value
    for key, value in expected.items()
    if key.startswith('grad/')
  }
  loss = lambda some, level: call({**x, **some}, hp, level)['loss']
  for level, names in by_level(gradients).items():
    got = jax.grad(loss)({name: x[name] for name in names}, level)
    for name in names:
      compare(got[name], gradients[name], err_msg=f'gradient by {name}')


def by_level(names):
  levels = {}
  for name in names:
    suffix = next((s for s in LEVELS if f'_{name}'.endswith(s)), '_logps')
    levels.setdefault(LEVELS[suffix], []).append(name)
  return levels


@pytest.mark.parametrize('name', NAMES)
def test_golden_float64(name):
  with jax.enable_x64(True):
    hp = goldens()[name]['hp']
    check(name, np.float64, hp['rtol'], hp['atol'])


@pytest.mark.parametrize('name', NAMES)
def test_golden_float32(name):
  check(name, np.float32, 1e-5, 1e-6)


def test_every_case_is_run_or_named():
  assert len(goldens()) == 88
  assert len(NAMES) == 86
