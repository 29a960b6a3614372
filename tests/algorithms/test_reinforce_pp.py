"""REINFORCE++: returns to go, whitened over the whole batch."""

import jax.numpy as jnp
import numpy as np
import online_worlds as online
import pytest
import toy_models as toys

from alignax.algorithms import reinforce_pp

G = 4


@pytest.mark.parametrize('kw', [
  dict(), dict(baseline='group'), dict(kl_in='loss'),
  dict(baseline='group', kl_in='loss'),
], ids=str)  # fmt: skip
def test_an_update_by_hand(kw):
  other, coef = toys.table(9), 0.3
  moved, (rows,), _ = online.one_update(
    reinforce_pp, group=G, kl_coef=coef, ref=other, **kw
  )
  mask = rows['mask']
  scores, _ = online.good_tokens(None, rows)
  if kw.get('baseline'):
    groups = scores.reshape(-1, G)
    scores = (groups - groups.mean(1, keepdims=True)).reshape(-1)
  ref = np.asarray(online.logps_of(rows)(other['embed']['embedding']))
  kl = coef * (rows['logps'] - ref) * mask
  in_loss = kw.get('kl_in') == 'loss'
  to_go = np.cumsum(kl[:, ::-1], axis=1)[:, ::-1]
  adv = scores[:, None] - (0.0 if in_loss else 1.0) * to_go
  adv = (adv - adv[mask].mean()) / adv[mask].std(ddof=1)

  def loss(logps):
    of_token = -adv * logps
    if in_loss:
      of_token += coef * (logps - ref) ** 2 / 2
    return jnp.sum(jnp.where(mask, of_token, 0)) / mask.sum()

  np.testing.assert_allclose(moved, online.gradient(loss, rows), atol=2e-5)


@pytest.mark.parametrize('kw, match', [
  (dict(baseline='group'), 'group is 1'),
  (dict(baseline='mean'), "Unknown baseline 'mean'"),
  (dict(kl_in='rewards'), "Unknown kl_in 'rewards'"),
])  # fmt: skip
def test_settings_that_make_no_sense(kw, match):
  with pytest.raises(ValueError, match=match):
    online.build(reinforce_pp, **kw)


def test_every_epoch_and_minibatch_is_an_update():
  kw = dict(epochs=2, minibatches=4, kl_coef=0.0, max_new_tokens=5)
  state, (row,) = online.run(reinforce_pp, **kw)
  assert row['updates'] == 8 and int(state.step) == 8
  assert reinforce_pp.updates_per_step(**kw) == 8
