"""RLOO: its update is REINFORCE with the others as baseline."""

import jax.numpy as jnp
import numpy as np
import online_worlds as online
import pytest
import toy_models as toys

from alignax.algorithms import rloo

G = 4


def advantages(values):
  """Each less the mean of the others, one by one."""
  groups = values.reshape(-1, G)
  others = [[np.delete(row, i).mean() for i in range(G)] for row in groups]
  return (groups - np.array(others)).reshape(-1, 1)


@pytest.mark.parametrize('kl_coef', [0.0, 0.3])
def test_an_update_by_hand(kl_coef):
  other = toys.table(9)
  moved, (rows,), metrics = online.one_update(
    rloo, group=G, kl_coef=kl_coef, ref=other
  )
  mask = rows['mask']
  scores, _ = online.good_tokens(None, rows)
  ref = np.asarray(online.logps_of(rows)(other['embed']['embedding']))
  kl = np.sum((rows['logps'] - ref) * mask, axis=1)
  adv = advantages(scores - kl_coef * kl)
  loss = lambda logps: -jnp.sum(mask * adv * logps) / len(adv)
  np.testing.assert_allclose(moved, online.gradient(loss, rows), atol=1e-5)
  if kl_coef:
    assert metrics['objective/kl'] == pytest.approx(kl.mean(), rel=1e-5)
  assert metrics['objective/score'] == pytest.approx(scores.mean(), rel=1e-5)


def test_one_response_has_nothing_to_be_compared_with():
  with pytest.raises(ValueError, match='group is 1'):
    online.build(rloo, group=1)


def test_roles():
  assert rloo.roles() == (('policy',), ('ref', 'reward'))
  assert rloo.roles(kl_coef=0.0, score_fn=online.constant)[1] == ()
  assert rloo.learned_rows(8, group=3) == 24
