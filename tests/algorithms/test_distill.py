"""Distillation: the loss by whole logits, and whose responses it is on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds

import alignax
from alignax import checks, metrics, reading, run, train
from alignax.algorithms import distill
from alignax.cli import configs

KEY = jax.random.key(0)
BATCH = worlds.text()
# A teacher of another size, as it mostly is.
MODELS = {
  'policy': worlds.make_model(), 'teacher': worlds.make_model(width=24, depth=1)
}  # fmt: skip


@pytest.fixture(scope='module')
def params():
  return {
    role: worlds.make_params(model, i)
    for i, (role, model) in enumerate(MODELS.items())
  }


@pytest.fixture(scope='module')
def logits(params):
  places = [BATCH[k] for k in ('inputs', 'segments', 'positions')]
  return [
    jax.jit(MODELS[role].logits)(params[role], *places) for role in MODELS
  ]


def evaluate(params, batch=BATCH, **kw):
  evaluate = distill.make_eval(MODELS, **kw)
  policy, teacher = ({role: params[role]} for role in MODELS)
  return float(evaluate(policy, teacher, batch, KEY)['loss'])


def make_state(params, tx):
  return train.init_state(
    {'policy': jax.tree.map(jnp.array, params['policy'])}, tx
  )


class TestLoss:
  @pytest.mark.parametrize('loss, kw', [
    ('forward_kl', {}), ('reverse_kl', {'temperature': 2.0}),
    ('generalized_jsd', {'beta': 0.3}), ('forward_kl', {'top_k': 4}),
  ], ids=str)  # fmt: skip
  def test_it_is_the_mean_over_learned_tokens(self, params, logits, loss, kw):
    each, _ = getattr(alignax, f'{loss}_loss')(*logits, **kw)
    want = np.asarray(each)[BATCH['mask']].mean()
    found = evaluate(params, loss=loss, **kw)
    assert found == pytest.approx(want, rel=1e-5)

  def test_microbatches_add_up(self, params):
    found = []
    for parts in (1, 4):
      tx = optax.sgd(0.5)
      step = distill.make_step(MODELS, tx, microbatches=parts)
      frozen = {'teacher': params['teacher']}
      found.append(step(make_state(params, tx), frozen, BATCH, KEY))
    (one, row), (two, other) = found
    worlds.assert_trees_close(one.params, two.params, atol=2e-5)
    worlds.assert_trees_close(row, other, atol=2e-5)
    assert float(row['grad_norm']) > 0.01

  def test_a_loss_of_something_else_is_refused(self):
    with pytest.raises(ValueError, match="no loss 'dpo' of student_logits"):
      distill.make_loss(MODELS, loss='dpo')


def test_prompts_are_what_stands_before_the_first_learned_token():
  batch = worlds.rows([6, 9, 4], prompt=3)
  batch['mask'][2] = False
  found = jax.device_get(distill.prompts_of(batch))
  for i in range(2):
    assert found['segments'][i].tolist() == [0] * 9 + [1] * 3
    np.testing.assert_array_equal(
      found['inputs'][i, 9:], batch['inputs'][i, :3]
    )
    assert found['positions'][i, 9:].tolist() == [0, 1, 2]
    assert not found['inputs'][i, :9].any()
  assert not found['segments'][2].any()


class TestOnPolicy:
  """With the student's own responses in some of the steps."""

  @staticmethod
  @functools.cache
  def steps(on_policy, number, temperature=1.0, seed=0):
    """The metrics of some steps; the policy stays as it is."""
    tx = optax.sgd(0.0)
    params = {
      role: worlds.make_params(model, i)
      for i, (role, model) in enumerate(MODELS.items())
    }
    step = distill.make_step(
      MODELS, tx, on_policy=on_policy, max_new_tokens=5, stop_ids=(3,),
      sampling_temperature=temperature,
    )  # fmt: skip
    state, rows = make_state(params, tx), []
    key = jax.random.key(seed)
    for _ in range(number):
      state, row = step(state, {'teacher': params['teacher']}, BATCH, key)
      rows.append({k: float(v) for k, v in row.items()})
    return rows

  def test_a_share_of_one_is_every_step_and_each_draws_its_own(self):
    rows = self.steps(1.0, 3)
    assert [row['distill/on_policy'] for row in rows] == [1, 1, 1]
    assert len({row['loss'] for row in rows}) == 3

  @pytest.mark.slow
  def test_a_share_is_that_of_the_steps(self):
    rows = self.steps(0.5, 24)
    own = [row['distill/on_policy'] for row in rows]
    assert 6 <= sum(own) <= 18
    # Of the data, it is always the same batch and so the same loss.
    given = {row['loss'] for row in rows if not row['distill/on_policy']}
    assert len(given) == 1
    assert own == [row['distill/on_policy'] for row in self.steps(0.5, 24)]

  def test_the_loss_is_on_what_the_student_said(self, params):
    """Greedy, so that the responses can be had another way."""
    (row,) = self.steps(1.0, 1, temperature=0.0)
    read = {role: jax.jit(model.logits) for role, model in MODELS.items()}
    tokens = np.zeros((8, 8), np.int32)
    tokens[:, :3] = BATCH['inputs'][:, :3]
    for i in range(3, 8):  # What is to come does not change what was.
      logits = read['policy'](params['policy'], tokens)
      tokens[:, i] = np.argmax(logits[:, i - 1], axis=-1)
    stopped = np.cumsum(tokens[:, 3:] == 3, axis=1)
    said = stopped - (tokens[:, 3:] == 3) == 0  # Up to the first stop token.
    both = [read[role](params[role], tokens)[:, 2:-1] for role in MODELS]
    each = np.asarray(alignax.forward_kl_loss(*both)[0])
    assert row['loss'] == pytest.approx(each[said].mean(), rel=1e-4)

  def test_it_needs_rows_of_one_conversation(self):
    config = configs.load('configs/distill.py:size=tiny,on_policy=0.5')
    assert not config.data.packing
    kw = checks.algorithm_arguments(distill, config)
    config.data.packing = True
    with pytest.raises(
      ValueError, match='data.packing is True, .* needs False'
    ):
      reading.batch_kw(distill, kw, config.data)

  def test_a_share_that_is_none(self):
    with pytest.raises(ValueError, match='on_policy is 1.5'):
      distill.make_step(MODELS, optax.sgd(0.1), on_policy=1.5)


class TestRuns:
  def make_config(self, arg='', **changes):
    config = configs.load(f'configs/distill.py:size=tiny,{arg}')
    small = dict(width=16, depth=1, num_heads=2, num_kv_heads=2, head_dim=8,
                 mlp_width=16, remat='none')  # fmt: skip
    with config.unlocked():
      config.total_steps = 3
      config.model.update(small)
      world = 'synthetic:demonstrations?n={}&seed={}'
      config.data.update(
        path=world.format(64, 0), heldout_path=world.format(8, 1), batch_size=8
      )
      config.evals.samples = 0
      config.log.tensorboard = False
      config.algorithm_kw.max_new_tokens = 4
      config.update(changes)
    return config

  def load(self, source):
    """The teacher's run, as small."""
    config = configs.load(source)
    with config.unlocked():
      config.update(self.make_config().to_dict() | {
        'algorithm': config.algorithm, 'algorithm_kw': config.algorithm_kw,
        'role_from': config.role_from,
      })  # fmt: skip
      config.model.width = 24
    return config

  @pytest.mark.slow
  def test_from_its_config_with_a_teacher_of_its_own_run(self, tmp_path):
    config = self.make_config('on_policy=0.5')
    run.train(config, tmp_path, load_config=self.load)
    rows = metrics.read(tmp_path)
    steps = [row for row in rows if 'loss' in row]
    assert {row['distill/on_policy'] for row in steps} <= {0.0, 1.0}
    first, last = (row['heldout/loss'] for row in rows if 'heldout/loss' in row)
    assert last < first

  def test_without_a_teacher(self, tmp_path):
    config = self.make_config()
    config.role_from.teacher = ''
    with pytest.raises(ValueError, match='role_from.teacher is empty'):
      run.train(config, tmp_path)
