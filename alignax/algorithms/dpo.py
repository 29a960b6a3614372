"""DPO: learn from preference pairs, with no sampling and no reward model.

A batch holds pairs: every array is [B, 2, T], with the preferred response in
[:, 0] and the other in [:, 1]. So the two stay on one device, and one forward
pass serves both. A row may hold S packed pairs, told apart by segment.

IPO, SLiC, EXO, APO and every other loss of `alignax.losses.preference` and
`anchored` is this algorithm with `loss=` its name.
"""

import functools

import jax
import jax.numpy as jnp

from alignax import losses, responses, train, weights
from alignax.losses import lookup

DATA = 'pairs'
TRAINED = ('policy',)
FROZEN = ('ref',)
TAKES = (
  'chosen_logps', 'rejected_logps', 'ref_chosen_logps', 'ref_rejected_logps'
)  # fmt: skip

find_loss = functools.partial(lookup.find_loss, takes=TAKES)


def check_kw(*, loss='dpo', microbatches=1, **_):
  """Raises for arguments that cannot be."""
  if compares_whole_batches(loss) and microbatches > 1:
    raise ValueError(
      f'microbatches is {microbatches}, but the loss {loss!r} compares all '
      'pairs of a batch: set it to 1, or take a smaller batch.'
    )


def make_step(models, tx, *, loss='dpo', average_logps=False, ld_alpha=1.0,
              wpo=False, nll_coef=0.0, microbatches=1, ema_decay=0.0,
              state_sharding=None, join=train.separate, **loss_kw):  # fmt: skip
  """Makes `step(state, frozen, batch, key) -> (state, metrics)`.

  Reference log-probs come from `batch['ref_logps']` [B, 2, S] where they were
  computed beforehand (see `reference_logps`), else from `frozen['ref']`.

  Args:
    models: 'policy'; the reference is the same model.
    tx: the optimiser.
    loss: name of a pair loss with a reference: 'dpo', 'ipo', 'hinge',
      'robust_dpo', ...; or the dotted name of one of your own.
    average_logps: whether the loss sees log-probs per token instead of sums.
    ld_alpha: weight of the tokens past the length of the shorter response, see
      `alignax.ld_logps`; 1 is DPO, less makes it care less for length.
    wpo: whether pairs count by how likely they are under the policy, see
      `alignax.wpo_weights`.
    nll_coef: weight of the negative log-likelihood of the chosen response, a
      mean over its tokens (RPO: Pang et al., eq. 1,
      https://arxiv.org/abs/2404.19733).
    microbatches, ema_decay, state_sharding, join: see `train.make_update`.
    **loss_kw: of the loss: `beta`, `label_smoothing`, ...
  """
  check_kw(loss=loss, microbatches=microbatches)
  loss_fn = make_loss(
    models['policy'],
    loss=loss,
    average_logps=average_logps,
    ld_alpha=ld_alpha,
    wpo=wpo,
    nll_coef=nll_coef,
    **loss_kw,
  )
  return train.make_train_step(
    loss_fn,
    tx,
    weigh=make_weigh(nll_coef),
    microbatches=microbatches,
    ema_decay=ema_decay,
    state_sharding=state_sharding,
    join=join,
  )


def make_eval(models, *, microbatches=1, by_row=False, ema_decay=0.0,
              nll_coef=0.0, join=train.separate, **loss_kw):  # fmt: skip
  """Makes `evaluate(params, frozen, batch, key)`: loss, margin, accuracy.

  A loss that compares all pairs of a batch sees all of it at once, whatever
  `microbatches` says.
  """
  del ema_decay
  if compares_whole_batches(loss_kw.get('loss', 'dpo')):
    microbatches = 1
  return train.make_eval(
    make_loss(models['policy'], nll_coef=nll_coef, **loss_kw),
    weigh=make_weigh(nll_coef),
    microbatches=microbatches,
    by_row=by_row,
    join=join,
  )


def make_loss(policy, *, loss='dpo', average_logps=False, ld_alpha=1.0,
              wpo=False, nll_coef=0.0, **loss_kw):  # fmt: skip
  """Makes the loss of every pair, [B, S], and of every chosen token, [B, T]."""
  pair_loss = find_loss(loss)
  read = functools.partial(
    sequence_logps, average=average_logps, ld_alpha=ld_alpha
  )

  def loss_fn(params, frozen, batch, key):
    del key  # No dropout: it would part the policy from its reference.
    if wpo:
      token_logps, likeness = logps_and_wpo(policy, params['policy'], batch)
    else:
      token_logps = policy.logps(params['policy'], batch)
    policy_logps = read(token_logps, batch)  # [B, 2, S]
    ref_logps = batch.get('ref_logps')
    if ref_logps is None:
      ref_logps = read(policy.logps(frozen['ref'], batch), batch)
    elif average_logps:
      ref_logps = ref_logps / responses.response_lengths(batch)
    pair = lambda x: (x[:, 0], x[:, 1])
    more = dict(loss_kw)
    if compares_whole_batches(loss):
      more['exists'] = batch['examples']
    value, metrics = pair_loss(*pair(policy_logps), *pair(ref_logps), **more)
    metrics |= dict(zip(('logps/chosen', 'logps/rejected'), pair(policy_logps)))
    if wpo:
      share = likeness[:, 0] * likeness[:, 1]
      value, metrics['wpo/weight'] = share * value, share
    terms = {'pair': (value, metrics)}
    if nll_coef:
      nll, _ = losses.nll_loss(token_logps[:, 0])
      terms['nll'] = (nll_coef * nll, {'nll': nll})
    return terms

  return loss_fn


def make_weigh(nll_coef=0.0):
  """Every pair alike, and in the likelihood every chosen response alike."""

  def weigh(batch):
    shares = {'pair': weights.per_example(batch['examples'])}
    if nll_coef:
      shares['nll'] = weights.per_sequence(
        batch['mask'][:, 0], batch['segments'][:, 0]
      )
    return shares

  return weigh


def sequence_logps(token_logps, batch, *, average=False, ld_alpha=1.0):
  """What the loss sees of every response. [B, 2, T] -> [B, 2, S]."""
  lengths = responses.response_lengths(batch)
  if ld_alpha == 1:
    found = responses.sum_responses(token_logps, batch)
  else:
    shorter = jnp.min(lengths, axis=1, keepdims=True)
    found = losses.ld_logps(
      token_logps,
      batch['mask'],
      jnp.broadcast_to(shorter, lengths.shape),
      batch['segments'],
      responses.num_documents(batch),
      alpha=ld_alpha,
    )
  return found / lengths if average else found


def logps_and_wpo(policy, params, batch):
  """Log-probs [B, 2, T] and `wpo_weights` [B, 2, S], from one forward pass."""
  hidden = policy.hidden(params, batch)
  stats = policy.head_stats_of(params, hidden, batch)
  # The normaliser at half the temperature is that of the squares.
  squares = policy.head_stats_of(
    *jax.lax.stop_gradient((params, hidden)), batch, temperature=0.5
  )
  likeness = losses.wpo_weights(
    stats.logps,
    squares.logz - 2 * stats.logz,
    batch['mask'],
    batch['segments'],
    responses.num_documents(batch),
  )
  return stats.logps, likeness


def reference_logps(policy, *, ld_alpha=1.0, **_):
  """Makes a compiled (params, batch) -> `ref_logps` [B, 2, S].

  Computed once for the whole data set, the reference need not stay in memory.
  """
  return jax.jit(
    lambda params, batch: sequence_logps(
      policy.logps(params, batch), batch, ld_alpha=ld_alpha
    )
  )


def compares_whole_batches(loss):
  """Whether a pair's loss depends on the other pairs: then it takes `exists`,
  to know which there are."""
  return 'exists' in lookup.arguments(find_loss(loss))
