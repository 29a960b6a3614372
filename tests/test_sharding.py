"""Every algorithm on meshes of eight devices does what one device does."""

import importlib
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds

from alignax import optim, sharding, train

STEPS = 5
KEY = jax.random.key(5)
SINGLE = (1, 1, 1)


def even_tokens(frozen, rows):
  """A score on the device: the share of even tokens in a response."""
  del frozen
  even = jnp.sum(rows['mask'] & (rows['targets'] % 2 == 0), axis=1)
  return even / jnp.maximum(rows['lengths'], 1), {}


SAMPLING = dict(
  score_fn=jax.jit(even_tokens), max_new_tokens=5, stop_ids=(3, 4)
)
ALGORITHMS = {
  'sft': (worlds.text, dict(neftune=1.0, microbatches=2)),
  'reward': (worlds.comparisons, dict(center=0.01)),
  'dpo': (worlds.comparisons, dict(label_smoothing=0.1)),
  'kto': (worlds.unpaired, dict(microbatches=2)),
  'distill': (worlds.text, dict(loss='reverse_kl', microbatches=2)),
  'ppo': (
    worlds.prompts,
    SAMPLING | dict(missing_eos_penalty=0.5, epochs=1),
  ),
  # A reward model, and minibatches whose rows come from all devices.
  'ppo, whole': (
    worlds.prompts,
    {k: v for k, v in SAMPLING.items() if k != 'score_fn'}
    | dict(epochs=2, minibatches=2),
  ),
  'grpo': (worlds.prompts, SAMPLING | dict(group=4, average='token')),
  'rloo': (worlds.prompts, SAMPLING | dict(group=4)),
  'reinforce_pp': (worlds.prompts, SAMPLING),
  'remax': (worlds.prompts, SAMPLING),
  'raft': (worlds.prompts, SAMPLING | dict(group=4)),
}  # fmt: skip
SLOW = (
  'kto', 'distill', 'ppo, whole', 'grpo', 'rloo', 'reinforce_pp', 'remax',
  'raft',
)  # fmt: skip
every = pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in ALGORITHMS
  ],
)
SCALAR = ('value', 'reward')
# All axes at once are tried each time, one at a time with the slow tests.
SIZES = [
  pytest.param(x, marks=() if min(x) > 1 else pytest.mark.slow)
  for x in worlds.MESHES
]


COMPILED = []  # Grows by one whenever XLA compiles something.


def _heard(event, duration, **_):
  if event == '/jax/core/compile/backend_compile_duration':
    COMPILED.append(duration)


jax.monitoring.register_event_duration_secs_listener(_heard)


def build(name, sizes):
  """(step, state, frozen) of an algorithm on a mesh."""
  file = name.split(',')[0]
  module = importlib.import_module(f'alignax.algorithms.{file}')
  kw = ALGORITHMS[name][1]
  trained, frozen = module.TRAINED, module.FROZEN
  if hasattr(module, 'roles'):
    trained, frozen = module.roles(**kw)
  model, mesh = worlds.make_model(), worlds.make_mesh(sizes)
  models = {role: model for role in (*trained, *frozen)}
  params = {
    role: worlds.make_params(model, i, value_head=role in SCALAR)
    for i, role in enumerate(models)
  }
  tx = optax.adam(1e-2)
  extra = module.init_extra(**kw) if hasattr(module, 'init_extra') else None
  state, where = worlds.make_state(
    mesh, {role: params[role] for role in trained}, tx, extra=extra
  )
  frozen = worlds.place(mesh, {role: params[role] for role in frozen})
  step = module.make_step(models, tx, **kw, state_sharding=where)
  return mesh, step, state, frozen


def run(name, sizes):
  """Metrics of a few steps, and what happened on the way."""
  mesh, step, state, frozen = build(name, sizes)
  rows, seen = [], {}
  with jax.set_mesh(mesh):
    for i in range(STEPS):
      batch = sharding.shard_batch(mesh, ALGORITHMS[name][0](seed=i))
      old, before = state, len(COMPILED)
      with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*donated.*')
        state, metrics = step(state, frozen, batch, KEY)
      rows.append({k: float(v) for k, v in metrics.items()})
      seen[i] = len(COMPILED) - before
      if i:  # Others may hold on to what the first state was made of.
        assert all(x.is_deleted() for x in jax.tree.leaves(old.params))
        assert all(x.is_deleted() for x in jax.tree.leaves(old.opt_state))
  assert not any(x.is_deleted() for x in jax.tree.leaves(frozen))
  return rows, seen


@pytest.fixture(scope='module')
def single():
  """Metrics on one device, by algorithm; each is computed once."""
  found = {}

  def get(name):
    if name not in found:
      found[name] = run(name, SINGLE)
    return found[name]

  return get


@pytest.mark.parametrize('sizes', SIZES, ids=str)
@every
def test_a_mesh_gives_the_losses_of_one_device(name, sizes, single):
  want, _ = single(name)
  found, compilations = run(name, sizes)
  losses = lambda rows: [row['loss'] for row in rows]
  np.testing.assert_allclose(losses(found), losses(want), atol=2e-5, rtol=0)
  assert len(set(losses(want))) == STEPS
  for row, other in zip(found, want):
    for key in row:
      assert row[key] == pytest.approx(other[key], abs=1e-3, rel=1e-3), key
  if name == 'ppo':  # Rollout and update agree where they compute apart.
    assert found[0]['policy/ratio'] == pytest.approx(1, abs=1e-5)
    assert found[0]['policy/approx_kl'] == pytest.approx(0, abs=1e-5)
    assert found[0]['objective/kl'] != 0
  assert compilations[0] > 0
  # Neither shardings nor types of the state change from step to step.
  assert [compilations[i] for i in range(1, STEPS)] == [0] * (STEPS - 1)


@every
def test_one_device_compiles_once(name, single):
  rows, compilations = single(name)
  assert [compilations[i] for i in range(1, STEPS)] == [0] * (STEPS - 1)
  if name == 'ppo':
    assert rows[0]['policy/ratio'] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('name', ['adamw', 'muon', 'adafactor', 'lion'])
def test_weak_types_compile_nothing_more(name):
  tx = optim.make_optimizer(
    name=name, learning_rate=1e-3, warmup_steps=0, total_steps=STEPS
  )
  params = {'policy': {'norm': {'scale': jnp.full((8,), 1.0)}}}
  assert params['policy']['norm']['scale'].weak_type
  state = train.init_state(params, tx)
  loss_fn = lambda params, frozen, batch, key: {
    'loss': (batch['x'] * params['policy']['norm']['scale'], {})
  }
  step = train.make_train_step(
    loss_fn, tx, weigh=lambda batch: {'loss': jnp.ones_like(batch['x'])}
  )
  for _ in range(3):
    state, _ = step(state, {}, {'x': jnp.ones((4, 8))}, KEY)
  assert step._cache_size() == 1


def test_pairs_on_a_data_mesh_are_never_moved():
  """[B, 2, T] keeps the two of a pair on a device: gradients are summed."""
  mesh, step, state, frozen = build('dpo', (8, 1, 1))
  with jax.set_mesh(mesh):
    batch = sharding.shard_batch(mesh, worlds.comparisons())
    text = step.lower(state, frozen, batch, KEY).compile().as_text()
  moves = set(re.findall(r'(all-to-all|collective-permute|all-gather)', text))
  assert moves == set()
  assert 'all-reduce' in text


class TestRules:
  mesh = worlds.make_mesh((2, 2, 2))

  @pytest.mark.parametrize(
    'name', ['adamw', 'adafactor', 'lion', 'muon', 'sgd']
  )
  def test_every_part_of_every_state_has_a_rule(self, name):
    tx = optim.make_optimizer(
      total_steps=10, name=name, weight_decay=0.1, warmup_steps=2
    )
    # Large enough that Adafactor factors its moments.
    model = worlds.make_model(
      width=128, mlp_width=256, tie_embeddings=False, qkv_bias=True,
      qk_norm=True, post_norms=True, head_dim=64,
    )  # fmt: skip

    def init(key):
      policy = model.init(key) | {
        'value_head': {'kernel': jnp.zeros(128), 'bias': jnp.zeros(())}
      }
      return train.init_state({'policy': policy}, tx, ema=True)

    state = jax.eval_shape(init, KEY)
    rules = sharding.TRANSFORMER_RULES
    where = sharding.shard_by_rules(self.mesh, rules, state)
    moments = jax.tree_util.tree_leaves_with_path(where)
    gate = [s for path, s in moments if 'gate' in str(path)]
    assert gate[0].spec == sharding.P(None, 'fsdp', 'tensor')

  def test_a_leaf_without_a_rule_is_an_error(self):
    tree = {'policy': {'adapter': {'matrix': np.zeros((4, 4))}}}
    with pytest.raises(
      ValueError, match=r'No partition rule matches policy/adapter/matrix of '
      r'shape \(4, 4\)',
    ):  # fmt: skip
      sharding.shard_by_rules(self.mesh, sharding.TRANSFORMER_RULES, tree)

  def test_a_size_that_does_not_divide_names_leaf_and_axis(self):
    tree = {'layers': {'mlp': {'gate': {'kernel': np.zeros((2, 4, 5))}}}}
    with pytest.raises(
      ValueError, match=r"layers/mlp/gate/kernel of shape \(2, 4, 5\) .*"
      r"'tensor' of size 2 .* divides 5",
    ):  # fmt: skip
      sharding.shard_by_rules(self.mesh, sharding.TRANSFORMER_RULES, tree)

  def test_scalars_are_replicated(self):
    where = sharding.shard_by_rules(self.mesh, (), {'x': np.zeros(())})
    assert where['x'].spec == sharding.P()

  def test_the_first_rule_wins(self):
    rules = (('a$', sharding.P('data')), ('a$', sharding.P()))
    where = sharding.shard_by_rules(self.mesh, rules, {'a': np.zeros(4)})
    assert where['a'].spec == sharding.P('data')


class TestMesh:
  def test_one_axis_takes_what_is_left(self):
    shape = sharding.make_mesh(data=-1, fsdp=2, tensor=2).shape
    assert dict(shape) == {'data': 2, 'fsdp': 2, 'tensor': 2}

  @pytest.mark.parametrize('axes', [(3, 1, 1), (-1, 3, 1), (2, 2, 1)])
  def test_a_mesh_that_does_not_cover_the_devices(self, axes):
    with pytest.raises(ValueError, match='does not cover the 8 devices'):
      sharding.make_mesh(*axes)

  @pytest.mark.parametrize('axes', [(0, 1, 1), (-2, 1, 1), (-1, -1, 1)])
  def test_sizes_that_are_none(self, axes):
    with pytest.raises(ValueError, match='data='):
      sharding.make_mesh(*axes)

  def test_a_batch_that_does_not_divide(self):
    mesh = worlds.make_mesh((4, 2, 1))
    with pytest.raises(ValueError, match='12 rows .* data . fsdp = 8'):
      sharding.shard_batch(mesh, {'x': np.zeros((12, 3))})
