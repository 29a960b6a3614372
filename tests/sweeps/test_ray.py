"""A sweep on a Ray cluster of two nodes, one of which dies."""

import os
import pathlib
import signal
import sys
import threading
import time

import pytest

from alignax.cli import main
from alignax.sweeps import state

ROOT = pathlib.Path(__file__).parents[2]
MEMORY = 80 * 2**20  # Of an object store, which holds next to nothing.
FOUR = """
sft = sweeps.run('small.py:sft', name='sft')
dpo = sweeps.run('small.py', {'algorithm_kw.behave': 'slow',
                              'total_steps': 12}, name='dpo', after=sft)
return sweeps.seeds(dpo, 4)
"""


def test_without_ray_it_says_what_works(write_sweep, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'ray', None)
  assert main([*write_sweep(FOUR), '--backend=ray']) == 1
  error = capsys.readouterr().err
  assert "pip install 'alignax[ray]'" in error and '--backend=local' in error


@pytest.fixture
def cluster(monkeypatch):
  """A head that runs nothing, and two nodes with room for one run each."""
  monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  ray = pytest.importorskip('ray', reason="needs pip install 'alignax[ray]'")
  from ray.cluster_utils import Cluster

  made = Cluster(
    initialize_head=True,
    head_node_args=dict(
      num_cpus=0, object_store_memory=MEMORY, include_dashboard=False,
    ),
  )  # fmt: skip
  monkeypatch.setenv('RAY_ADDRESS', made.address)
  made.nodes = [
    made.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)
  ]
  yield made
  ray.shutdown()
  made.shutdown()


def descendants(root: int) -> list[int]:
  """Processes that a process started, and those that they started."""
  parents = {}
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      parents[int(path.parent.name)] = int(
        path.read_text().rsplit(')', 1)[1].split()[1]
      )
    except (FileNotFoundError, ProcessLookupError):
      continue
  found = [root]
  for pid in found:
    found += [child for child, parent in parents.items() if parent == pid]
  return found[1:]


def kill_node(cluster, node):
  """All at once, as when a machine loses its power."""
  (raylet,) = node.all_processes['raylet']
  pids = descendants(raylet.process.pid)
  cluster.remove_node(node, allow_graceful=False)
  for pid in pids:
    try:
      os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
      continue


def wait_for(condition, seconds=90):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'it never came to it'
    time.sleep(0.1)


@pytest.mark.slow
def test_a_node_dies_and_every_run_is_done(cluster, write_sweep, runs_of):
  args = [*write_sweep(FOUR), '--backend=ray']
  killed = {}

  def kill_one():
    def at_work():
      try:
        runs = [run for run, _ in runs_of().values()]
      except FileNotFoundError:
        return []
      return [r for r in runs if 2 <= state.last_step(r.directory('out')) < 9
              and r.total_steps == 12]  # fmt: skip

    wait_for(lambda: len(at_work()) == 2)
    killed['at'] = {
      r.name: state.last_step(r.directory('out')) for r in at_work()
    }
    kill_node(cluster, cluster.nodes[0])

  thread = threading.Thread(target=kill_one)
  thread.start()
  assert main(args) == 0
  thread.join()
  starts = {
    name: [int(line.split()[0]) for line in lines]
    for name, (_, lines) in runs_of().items()
  }
  assert len(starts) == 5
  twice = {name: s for name, s in starts.items() if len(s) == 2}
  # Exactly what was on the node that died, from its checkpoint on.
  assert len(twice) == 1 and twice.keys() <= killed['at'].keys()
  (name,) = twice
  assert twice[name][0] == 0 and twice[name][1] >= killed['at'][name] > 0
  assert main(args) == 0
  assert sum(len(lines) for _, lines in runs_of().values()) == 6
