"""Stored reference log-probs: read again for the same data, and only for it."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_worlds as worlds

from alignax import data, reading, reference
from configs import common


def example(tokens, start=1):
  tokens = np.array(tokens, np.int32)
  learned = np.arange(len(tokens)) >= start
  return data.Example((tokens, tokens + 1), (learned, learned), row=0)


ROWS = [example([1, 2, 3]), example([4, 5])]
OTHERS = {
  'tokens': [example([1, 2, 4]), example([4, 5])],
  'masks': [example([1, 2, 3], start=2), example([4, 5])],
  'order': ROWS[::-1],
  'number': ROWS[:1],
  'division': [example([1, 2]), example([3, 4, 5])],
}


class Run:
  """What a run hands over, and how often it asked the reference."""

  def __init__(self, workdir):
    self.workdir, self.asked = workdir, 0
    self.config, _ = common.base()
    self.config.data.update(precompute_ref=True, length=4, batch_size=1)

  def reference_logps(self, ref):
    def compute(params, batch):
      self.asked += 1
      return jnp.sum(batch['inputs'], -1, jnp.float32)[..., None]

    return compute

  def __call__(self, rows, heldout, ref=1.0):
    made = lambda rows: data.Examples(rows, kind='pairs')
    batches = data.Batches(
      made(rows), kind='pairs', length=4, batch_size=1, seed=0
    )
    frozen = {'ref': {'w': jnp.full((3, 2), ref)}}
    roles = types.SimpleNamespace(
      models={'ref': None}, frozen=frozen, join=lambda t, f: (t, dict(f))
    )
    found = reading.Data(batches, made(heldout), None, {})
    before = self.asked
    reference.with_reference(
      self.config, self, roles, found, worlds.make_mesh(), self.workdir
    )
    assert not frozen
    stored = [e.ref_logps for e in (*batches.examples, *found.heldout)]
    wanted = [tuple(map(np.sum, e.tokens)) for e in (*rows, *heldout)]
    assert stored == wanted
    return self.asked - before


def test_they_are_computed_once(tmp_path, capsys):
  run = Run(tmp_path)
  assert (run(ROWS, ROWS[:1]), run(ROWS, ROWS[:1])) == (3, 0)
  assert 'anew' not in capsys.readouterr().out


@pytest.mark.parametrize('name', OTHERS)
@pytest.mark.parametrize('heldout', [False, True])
def test_other_data_has_others(tmp_path, name, heldout, capsys):
  run, sets = Run(tmp_path), [ROWS, ROWS]
  run(*sets)
  sets[heldout] = OTHERS[name]
  assert run(*sets) == sum(map(len, sets))
  assert 'reference.npz is of other data' in capsys.readouterr().out
  assert run(*sets) == 0


def test_another_reference_has_others(tmp_path, capsys):
  run = Run(tmp_path)
  run(ROWS, ROWS[:1])
  assert (run(ROWS, ROWS[:1], 1.0001), run(ROWS, ROWS[:1], 1.0001)) == (3, 0)
  assert 'or another reference than this' in capsys.readouterr().out


def test_a_checksum_is_of_every_bit_wherever_it_is():
  mesh = worlds.make_mesh()
  w = jax.random.normal(jax.random.key(0), (8, 4), jnp.bfloat16)
  q = jnp.arange(16, dtype=jnp.int8)
  whole = reference.checksum({'q': q, 'w': w})
  rows = jax.NamedSharding(mesh, jax.P('data'))
  assert reference.checksum({'q': q, 'w': jax.device_put(w, rows)}) == whole
  for other in (
    {'q': q, 'w': w.at[3, 1].multiply(1.01)},
    {'q': q, 'w': w[::-1]},
    {'q': q.at[0].add(1), 'w': w},
  ):
    assert reference.checksum(other) != whole


def test_those_of_older_runs_say_not_of_what_they_are(tmp_path):
  run = Run(tmp_path)
  np.savez(tmp_path / 'reference.npz', training=np.zeros((2, 2)))
  assert run(ROWS, ROWS[:1]) == 3
