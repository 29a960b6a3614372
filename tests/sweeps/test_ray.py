"""A sweep on a Ray cluster of two nodes, one of which dies."""

import os
import pathlib
import signal
import sys
import threading
import time

import pytest

from alignax.cli import main
from alignax.sweeps import ray_cluster, state

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


def test_runs_of_a_node_have_cores_of_their_own(tmp_path, monkeypatch):
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  own = lambda size: ray_cluster.own_cores([3, 5, 7, 9, 11], size)
  with own(2) as a, own(2) as b, own(2) as c:
    assert (a, b, c) == ([3, 5], [7, 9], None)
  with own(2) as again, own(9) as all_of_them, own(0) as none:
    assert (again, all_of_them, none) == ([3, 5], None, None)


@pytest.fixture
def cluster(monkeypatch):
  """Two nodes with room for one run each; the first cannot be lost."""
  monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
  # A node is not dead because a busy machine starts it slowly.
  monkeypatch.setenv('RAY_raylet_start_wait_time_s', '180')
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  ray = pytest.importorskip('ray', reason="needs pip install 'alignax[ray]'")
  from ray.cluster_utils import Cluster

  made = Cluster(
    initialize_head=True,
    head_node_args=dict(
      num_cpus=1, object_store_memory=MEMORY, include_dashboard=False,
    ),
  )  # fmt: skip
  monkeypatch.setenv('RAY_ADDRESS', made.address)
  made.mortal = made.add_node(num_cpus=1, object_store_memory=MEMORY)
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


def runs_on(node, run) -> bool:
  """Whether a process of a run is one of a node's."""
  (raylet,) = node.all_processes['raylet']
  for pid in descendants(raylet.process.pid):
    try:
      words = pathlib.Path(f'/proc/{pid}/cmdline').read_text()
    except (FileNotFoundError, ProcessLookupError):
      continue
    if f'/{run.id}' in words:
      return True
  return False


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


def wait_for(condition, seconds=240):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'it never came to it'
    time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.serial
def test_a_node_dies_and_every_run_is_done(cluster, write_sweep, runs_of):
  args = [*write_sweep(FOUR), '--backend=ray']
  killed = {}

  def at_work():
    """A run on the node to be killed that has come some way."""
    try:
      runs = [run for run, _ in runs_of().values() if run.total_steps == 12]
    except FileNotFoundError:
      return None
    for run in runs:
      step = state.last_step(run.directory('out'))
      if 2 <= step < 9 and runs_on(cluster.mortal, run):
        return run
    return None

  def kill_one():
    found = []
    wait_for(lambda: found.append(at_work()) or found[-1])
    run = found[-1]
    killed['run'] = run.name
    killed['at'] = state.last_step(run.directory('out'))
    kill_node(cluster, cluster.mortal)

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
  assert list(twice) == [killed['run']]
  first, second = twice[killed['run']]
  # (The checkpoint of a step follows its line of metrics.)
  assert first == 0 and second >= killed['at'] - 1 > 0
  assert main(args) == 0
  assert sum(len(lines) for _, lines in runs_of().values()) == 6
