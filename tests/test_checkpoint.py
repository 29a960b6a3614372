"""Checkpoints: whole, exact, on any mesh, and whole after what went wrong."""

import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds

from alignax import checkpoint, sharding, train

TX = optax.adam(1e-3)


def make_state(fill=0.0, mesh=(1, 1, 1)):
  """A state of two roles with every kind of part, where the rules put it."""
  layer = jnp.arange(64.0).reshape(2, 8, 4) / 7 + fill
  params = {
    role: {
      'layers': {'mlp': {'down': {'kernel': layer + i}}},
      'norm': {'scale': jnp.full(4, fill, jnp.bfloat16)},
    }
    for i, role in enumerate(('policy', 'value'))
  }
  mesh = worlds.make_mesh(mesh)
  extra = {'kl_coef': jnp.float32(0.1 + fill)}
  return worlds.make_state(mesh, params, TX, ema=True, extra=extra)


def abstract(state, where):
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    state,
    where,
  )


def assert_same(a, b):
  """Bit for bit, dtype for dtype, and as the same tree."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def steps_in(directory):
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


@pytest.fixture
def saver(tmp_path):
  made = checkpoint.Checkpointer(tmp_path / 'checkpoints')
  yield made
  made.close()


class TestRoundTrip:
  def test_is_exact(self, saver):
    state, where = make_state(0.3)
    assert saver.latest is None
    saver.save(7, state, note={'tokens': 10**12})
    saver.wait()
    assert saver.latest == 7 and saver.note(7) == {'tokens': 10**12}
    other, _ = make_state(0.9)
    assert_same(saver.restore(abstract(other, where)), state)

  def test_without_an_average_or_extras(self, saver):
    params = {'policy': {'norm': {'scale': jnp.ones(4)}}}
    state = train.init_state(params, optax.sgd(0.1))
    saver.save(1, state)
    saver.wait()
    assert_same(saver.restore(state), state)

  def test_restores_on_another_mesh(self, saver):
    state, _ = make_state(0.3, mesh=(2, 2, 2))
    saver.save(1, state)
    saver.wait()
    for mesh in ((1, 1, 1), (1, 4, 2)):
      other, where = make_state(0.0, mesh=mesh)
      found = saver.restore(abstract(other, where))
      assert_same(found, state)
      for x, s in zip(jax.tree.leaves(found), jax.tree.leaves(where)):
        assert x.sharding.is_equivalent_to(s, x.ndim)

  def test_a_state_donated_while_it_is_saved_is_saved_as_it_was(self, saver):
    big = {'policy': {'norm': {'scale': jnp.arange(4e6)}}}
    state = train.init_state(big, optax.sgd(0.1))
    want = np.array(state.params['policy']['norm']['scale'])
    bump = jax.jit(
      lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0
    )
    saver.save(1, state)
    for _ in range(10):
      state = bump(state)
    jax.block_until_ready(state)
    saver.wait()
    found = saver.restore(state, 1).params['policy']['norm']['scale']
    np.testing.assert_array_equal(np.asarray(found), want)


class TestKeeping:
  def test_the_last_are_kept(self, tmp_path):
    saver = checkpoint.Checkpointer(tmp_path, keep=2)
    state, _ = make_state()
    for step in (1, 2, 3, 4):
      saver.save(step, state)
    saver.close()
    assert steps_in(tmp_path) == [3, 4]

  @pytest.mark.parametrize('metric, best', [('score', 2), ('-score', 3)])
  def test_the_best_is_kept_too(self, tmp_path, metric, best):
    saver = checkpoint.Checkpointer(
      tmp_path, keep=1, keep_best=1, best_metric=metric
    )
    state, _ = make_state()
    scores = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.4, 5: None}
    for step, score in scores.items():
      saver.save(step, state, None if score is None else {'score': score})
    saver.close()
    assert steps_in(tmp_path) == [best, 5]


class TestRoles:
  def test_a_role_is_read_alone(self, saver):
    state, where = make_state(0.3, mesh=(2, 2, 2))
    saver.save(1, state)
    saver.save(2, jax.tree.map(lambda x: x * 2, state))
    saver.wait()
    assert checkpoint.latest_step(saver.directory) == 2
    assert checkpoint.roles(saver.directory) == ('policy', 'value')
    found = checkpoint.load_role(saver.directory, 'value')
    assert_same(found, jax.tree.map(lambda x: x * 2, state.params['value']))
    assert all(len(x.devices()) == 1 for x in jax.tree.leaves(found))

  def test_a_role_is_read_onto_a_mesh(self, saver):
    state, _ = make_state(0.3)
    saver.save(1, state)
    saver.wait()
    like, where = make_state(mesh=(2, 2, 2))
    wanted = abstract(like.params['policy'], where.params['policy'])
    found = checkpoint.load_role(saver.directory, 'policy', wanted)
    assert_same(found, state.params['policy'])
    kernel = found['layers']['mlp']['down']['kernel']
    assert kernel.sharding.spec == sharding.P(None, 'tensor', 'fsdp')

  def test_a_role_that_is_not_there(self, saver):
    saver.save(1, make_state()[0])
    saver.wait()
    with pytest.raises(checkpoint.CheckpointError, match=r"no role 'reward'; "
                       r'it has policy, value'):  # fmt: skip
      checkpoint.load_role(saver.directory, 'reward')

  def test_no_checkpoint(self, tmp_path):
    assert checkpoint.latest_step(tmp_path) is None
    with pytest.raises(checkpoint.CheckpointError, match='no checkpoint'):
      checkpoint.roles(tmp_path)


class TestTrees:
  def test_round_trip(self, tmp_path):
    tree = {'a': jnp.arange(3.0), 'b': {'c': jnp.ones((2, 2), jnp.bfloat16)}}
    checkpoint.save_tree(tmp_path / 'tree', tree)
    assert_same(checkpoint.load_tree(tmp_path / 'tree'), tree)

  def test_no_tree(self, tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match='no saved tree'):
      checkpoint.load_tree(tmp_path / 'none')


def test_another_architecture_is_refused(saver):
  state, _ = make_state()
  saver.save(1, state)
  saver.wait()
  grown = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((*x.shape, 3), x.dtype), state
  )
  with pytest.raises(checkpoint.CheckpointError, match='restore'):
    saver.restore(grown)


# A limit on the size of files stands in for a full disk: both are an OSError
# of a write, in the middle of a save.
FULL = """
  import resource, signal, sys
  import jax.numpy as jnp, optax
  from alignax import checkpoint, train

  def state(n):
    params = {'policy': {'norm': {'scale': jnp.arange(float(n))}}}
    return train.init_state(params, optax.sgd(0.1))

  saver = checkpoint.Checkpointer(sys.argv[1])
  saver.save(1, state(100))
  saver.wait()
  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
  import numpy as np
  noise = jnp.asarray(np.random.default_rng(0).normal(size=100_000))
  big = train.init_state({'policy': {'norm': {'scale': noise}}}, optax.sgd(.1))
  try:
    saver.save(2, big)
    saver.wait()
  except checkpoint.CheckpointError as error:
    print(error)
    sys.exit(3)
"""


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path):
  result = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(FULL), str(tmp_path / 'c')],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).parent.parent,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    timeout=300,
  )
  assert result.returncode == 3, result.stderr
  assert 'disk is full' in result.stdout
  assert 'Earlier checkpoints are untouched' in result.stdout
  saver = checkpoint.Checkpointer(tmp_path / 'c')
  assert saver.latest == 1
  params = {'policy': {'norm': {'scale': jnp.zeros(100)}}}
  found = saver.restore(train.init_state(params, optax.sgd(0.1)))
  scale = found.params['policy']['norm']['scale']
  np.testing.assert_array_equal(scale, np.arange(100.0))
  saver.close()
