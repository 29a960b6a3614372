"""ReMax: its update is REINFORCE with the greedy response as baseline."""

import jax.numpy as jnp
import numpy as np
import online_worlds as online
import pytest
import toy_models as toys

from alignax.algorithms import remax


@pytest.mark.parametrize('kl_coef', [0.0, 0.3])
def test_an_update_by_hand(kl_coef):
  other = toys.table(9)
  moved, (rows, greedy), metrics = online.one_update(
    remax, kl_coef=kl_coef, ref=other
  )
  # The greedy responses are the likeliest tokens, one after the other.
  table = toys.table(0)['embed']['embedding']
  best = table.argmax(1)[greedy['inputs']]
  mask = greedy['mask']
  np.testing.assert_array_equal(greedy['targets'][mask], best[mask])
  np.testing.assert_array_equal(greedy['row'], rows['row'])

  scores, base = (online.good_tokens(None, x)[0] for x in (rows, greedy))
  assert metrics['objective/greedy_score'] == pytest.approx(base.mean())
  mask = rows['mask']
  ref = np.asarray(online.logps_of(rows)(other['embed']['embedding']))
  kl = kl_coef * (rows['logps'] - ref) * mask
  to_go = np.cumsum(kl[:, ::-1], axis=1)[:, ::-1]
  adv = (scores - base)[:, None] - to_go
  loss = lambda logps: -jnp.sum(mask * adv * logps) / len(adv)
  np.testing.assert_allclose(moved, online.gradient(loss, rows), atol=1e-5)


def test_a_greedy_response_without_a_score_leaves_its_prompt_out():
  calls = []

  def score_fn(frozen, rows):
    scores, _ = online.good_tokens(frozen, rows)
    calls.append(1)
    if len(calls) == 2:
      scores = np.where(np.arange(16) < 8, np.nan, scores)
    return scores, {'x/failed': np.isnan(scores)}

  moved, (rows, greedy), metrics = online.one_update(
    remax, kl_coef=0.0, score_fn=score_fn
  )
  assert metrics['rewards/excluded'] == 8
  assert metrics['rewards/x/failed'] == 8 / 32
  scores, base = (online.good_tokens(None, x)[0] for x in (rows, greedy))
  mask = rows['mask'] & (np.arange(16) >= 8)[:, None]
  loss = lambda logps: -jnp.sum(mask * (scores - base)[:, None] * logps) / 8
  np.testing.assert_allclose(moved, online.gradient(loss, rows), atol=1e-5)
