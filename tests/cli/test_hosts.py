"""How a process finds the others."""

import jax
import pytest

from alignax.cli import train


@pytest.fixture
def joined(monkeypatch):
  calls = []
  monkeypatch.setattr(
    jax.distributed, 'initialize', lambda *args: calls.append(args)
  )
  return calls


def test_jax_finds_them_itself(joined):
  train.join_hosts({'SLURM_JOB_ID': '1'})
  assert joined == [()]


def test_they_are_told(joined):
  train.join_hosts({
    'JAX_COORDINATOR_ADDRESS': 'a:1',
    'ALIGNAX_NUM_PROCESSES': '4',
    'ALIGNAX_PROCESS_ID': '3',
  })
  assert joined == [('a:1', 4, 3)]


def test_half_of_it_is_an_error(joined):
  with pytest.raises(ValueError, match='ALIGNAX_PROCESS_ID'):
    train.join_hosts({
      'JAX_COORDINATOR_ADDRESS': 'a:1', 'ALIGNAX_NUM_PROCESSES': '4'
    })
  assert not joined
