"""Rounds of SFT and DPO: who samples, who is the reference, what is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import online_worlds as online
import optax
import pytest
import toy_models as toys

from alignax import assemble
from alignax.algorithms import llama3_rounds
from configs import llama3_rounds as rounds_config

G, BETA, NLL, RATE = 4, 0.5, 0.3, 0.5


@pytest.fixture(scope='module', params=[True, False], ids=['restart', 'go-on'])
def rounds(request):
  """Seven steps of rounds of five: rows, tables before and after, metrics."""
  kept, metrics = [], []
  step, state, frozen = online.build(
    llama3_rounds, group=G, sft_steps=3, dpo_steps=2, restart=request.param,
    nll_coef=NLL, beta=BETA, max_new_tokens=5, stop_ids=(0,),
    # A momentum: what is left of it would show where a part begins.
    tx=optax.sgd(RATE, momentum=0.9),
    score_fn=online.keeping(online.good_tokens, kept),
  )  # fmt: skip
  assert not frozen
  tables = [online.table_of(state)]
  for i in range(7):
    state, found = step(state, frozen, toys.prompts(16, seed=i), online.KEY)
    tables.append(online.table_of(state))
    metrics.append(jax.device_get(found))
  return request.param, kept, tables, metrics


def parts_of(rows):
  scores, _ = online.good_tokens(None, rows)
  start = np.arange(16) * G
  best = start + scores.reshape(-1, G).argmax(1)
  worst = start + scores.reshape(-1, G).argmin(1)
  return best, worst, scores[best] > scores[worst]


def nll_of(rows):
  best, _, _ = parts_of(rows)
  mask = rows['mask'][best]
  return lambda logps: -jnp.sum(mask * logps[best]) / mask.sum()


def dpo_of(rows, ref):
  best, worst, tell = parts_of(rows)
  total = lambda logps: jnp.sum(logps * rows['mask'], axis=1)
  ref_total = total(online.logps_of(rows)(ref))

  def loss(logps):
    gain = total(logps) - ref_total
    z = BETA * (gain[best] - gain[worst])[tell]
    return jnp.mean(jnp.log1p(jnp.exp(-z))) + NLL * nll_of(rows)(logps)

  return loss


def test_samples_are_of_the_last_rounds_policy(rounds):
  _, kept, tables, _ = rounds
  for i, rows in enumerate(kept):
    sampler = tables[0] if i < 5 else tables[5]
    np.testing.assert_allclose(
      rows['logps'], online.logps_of(rows)(sampler), atol=1e-5
    )


def test_every_update_is_as_written_out(rounds):
  """Two parts, then the first of a round that starts from where it may."""
  restart, kept, tables, metrics = rounds
  at, trace = tables[0], 0.0
  for i in range(7):
    if i in (0, 3, 5):  # A part begins: nothing is left of the last one.
      trace = 0.0
    if i == 5:
      at = tables[0] if restart else tables[5]
    in_dpo = i in (3, 4)
    loss = dpo_of(kept[i], tables[3]) if in_dpo else nll_of(kept[i])
    trace = 0.9 * trace + online.gradient(loss, kept[i], table=at)
    at = at - RATE * trace
    np.testing.assert_allclose(tables[i + 1], at, atol=3e-5)
    assert metrics[i]['round/in_dpo'] == in_dpo


def test_the_average_begins_anew_where_the_policy_does():
  step, state, _ = online.build(
    llama3_rounds, group=G, sft_steps=1, dpo_steps=1, max_new_tokens=5,
    stop_ids=(0,), restart=True, ema_decay=0.9, tx=optax.sgd(RATE),
  )  # fmt: skip
  start = online.table_of(state)
  state = state.replace(ema=jax.tree.map(jnp.array, state.params))
  average = lambda: np.asarray(state.ema['policy']['embed']['embedding'])
  for i in range(3):  # The third is the first of a round.
    before = average()
    state, _ = step(state, {}, toys.prompts(16, seed=i), online.KEY)
    begun = start if i == 2 else before
    want = 0.9 * begun + 0.1 * online.table_of(state)
    np.testing.assert_allclose(average(), want, atol=1e-6)


def test_metrics_of_both_losses_are_means_in_every_part(rounds):
  _, kept, tables, metrics = rounds
  for i in (0, 3):
    logps = np.asarray(online.logps_of(kept[i])(tables[i]))
    best, _, tell = parts_of(kept[i])
    want = logps[best][kept[i]['mask'][best]].mean()
    assert metrics[i]['token/logps'] == pytest.approx(want, rel=1e-4)
    assert metrics[i]['objective/pairs'] == pytest.approx(tell.mean())


@pytest.mark.parametrize('kw', [
  dict(group=1), dict(sft_steps=0, dpo_steps=0), dict(sft_steps=-1),
])  # fmt: skip
def test_settings_that_make_no_sense(kw):
  with pytest.raises(ValueError, match='a round of at least 1 step'):
    online.build(llama3_rounds, **kw)
  with pytest.raises(ValueError, match='compares all pairs'):
    online.build(llama3_rounds, loss='aot')


@pytest.mark.parametrize('schedule', ['cosine', 'linear', 'wsd'])
def test_a_schedule_that_no_part_gets_to_the_end_of(schedule):
  config = rounds_config.get_config('sft_steps=3,dpo_steps=2')
  make = lambda: assemble.make_optimizer(
    config, llama3_rounds, dict(config.algorithm_kw)
  )
  make()
  config.optimizer.schedule = schedule
  with pytest.raises(ValueError, match='anew in every part of 3 and 2 steps'):
    make()
  config.total_steps = 3  # There is one part.
  make()
