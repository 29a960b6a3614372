"""SFT: the loss it says it is, its averages and its noise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds

from alignax import train
from alignax.algorithms import sft

KEY = jax.random.key(0)
BATCH = worlds.text()


@pytest.fixture(scope='module')
def model():
  return worlds.make_model()


@pytest.fixture(scope='module')
def params(model):
  return worlds.make_params(model)


@pytest.fixture(scope='module')
def nll(model, params):
  """By the logits, [B, T]."""
  logits = jax.jit(model.logits)(
    params, *(BATCH[k] for k in ('inputs', 'segments', 'positions'))
  )
  logps = np.asarray(jax.nn.log_softmax(logits))
  return -np.take_along_axis(logps, BATCH['targets'][..., None], -1)[..., 0]


def evaluate(model, params, batch=BATCH, **kw):
  run = sft.make_eval({'policy': model}, **kw)
  return float(run({'policy': params}, {}, batch, KEY)['loss'])


def test_every_token_alike(model, params, nll):
  want = nll[BATCH['mask']].mean()
  assert evaluate(model, params) == pytest.approx(want, abs=1e-5)


def test_every_conversation_alike(model, params, nll):
  rows = [nll[i][mask].mean() for i, mask in enumerate(BATCH['mask'])]
  found = evaluate(model, params, average='sequence')
  assert found == pytest.approx(np.mean(rows), abs=1e-5)
  assert abs(found - evaluate(model, params)) > 1e-4


@pytest.mark.parametrize('kw', [dict(label_smoothing=0.1), dict(z_loss=0.01)])
def test_smoothing_and_z_loss_of_a_step(model, params, kw):
  given = (BATCH[k] for k in ('inputs', 'segments', 'positions'))
  logits = np.asarray(jax.jit(model.logits)(params, *given))
  logz = np.log(np.exp(logits).sum(-1))
  logps = logits - logz[..., None]
  right = np.take_along_axis(logps, BATCH['targets'][..., None], -1)[..., 0]
  share = kw.get('label_smoothing', 0.0)
  loss = -(1 - share) * right - share * logps.mean(-1)
  loss = loss + kw.get('z_loss', 0.0) * logz**2
  tx = optax.sgd(0.0)
  step = sft.make_step({'policy': model}, tx, **kw)
  own = {'policy': jax.tree.map(jnp.copy, params)}  # The step donates it.
  _, metrics = step(train.init_state(own, tx), {}, BATCH, KEY)
  want = loss[BATCH['mask']].mean()
  assert float(metrics['loss']) == pytest.approx(want, abs=1e-5)
  assert abs(want + right[BATCH['mask']].mean()) > 1e-3


def test_an_unknown_average(model):
  with pytest.raises(ValueError, match="'token' or 'sequence'"):
    sft.make_step({'policy': model}, optax.sgd(0.1), average='tokens')


def test_packed_conversations_are_the_conversations(model, params):
  half = worlds.rows([5, 6, 4, 6], length=6)
  pair = lambda x: x.reshape(2, 12)
  packed = {k: pair(v) for k, v in half.items()}
  second = pair(np.tile([[0], [1]], (2, 6)))
  packed['segments'] = packed['segments'] * (1 + second)
  for average in ('token', 'sequence'):
    one = evaluate(model, params, half, average=average)
    two = evaluate(model, params, packed, average=average)
    assert one == pytest.approx(two, abs=1e-5)


@dataclasses.dataclass(frozen=True)
class Flat:
  """Adds up its noise: the loss then shows what was drawn."""

  config: worlds.models.Config = worlds.CONFIG

  def head_stats(self, params, batch, *, noise=None, mean_logps=False):
    total = 0.0 if noise is None else jnp.sum(noise, axis=-1)
    logps = total + params['policy_bias'] + jnp.zeros(batch['inputs'].shape)
    return worlds.models.model.fused_head.HeadStats(logps, logps, logps)


class TestNoise:
  def losses(self, **kw):
    tx = optax.sgd(0.0)
    step = sft.make_step({'policy': Flat()}, tx, **kw)
    state = train.init_state({'policy': {'policy_bias': jnp.zeros(())}}, tx)
    found = []
    for _ in range(3):
      state, metrics = step(state, {}, BATCH, KEY)
      found.append(float(metrics['loss']))
    return found

  def test_every_step_draws_its_own(self):
    assert len(set(self.losses(neftune=5.0))) == 3

  def test_without_it_steps_are_alike(self):
    assert set(self.losses()) == {0.0}

  def test_evaluation_has_none(self):
    run = sft.make_eval({'policy': Flat()}, neftune=5.0)
    params = {'policy': {'policy_bias': jnp.zeros(())}}
    assert float(run(params, {}, BATCH, KEY)['loss']) == 0.0

  def test_its_scale(self):
    noise = sft.neftune_noise(Flat(), BATCH, KEY, 5.0)
    tokens = BATCH['segments'].sum(1)
    bound = 5 / np.sqrt(tokens * worlds.CONFIG.width)
    assert noise.shape == (*BATCH['inputs'].shape, worlds.CONFIG.width)
    largest = np.abs(noise).max(axis=(1, 2))
    assert np.all(largest <= bound) and np.all(largest > 0.9 * bound)
