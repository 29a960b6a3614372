"""Backend: a Ray cluster.

A run is a task; Ray finds a node for it, and another if that one dies, where it
goes on from its last checkpoint. The nodes see the same file system, and have
alignax installed.
"""

import contextlib
import os
import pathlib
import tempfile
import threading

from alignax.alone import try_lock
from alignax.sweeps import state
from alignax.sweeps.schedule import Execute
from alignax.sweeps.state import Status

POLL = 1.0  # Seconds between two looks at a task.
RETRIES = 5  # Of a task whose node died; each goes on from a checkpoint.


def make_execute(
  workdir, stopping: threading.Event, *, cpus: float, gpus: float
) -> Execute:
  """Executes runs as tasks of the cluster that RAY_ADDRESS names.

  Without an address, it is the one that was started on this machine, or a new
  one of this machine alone.

  Args:
    workdir: of the sweep; on a file system that all nodes see.
    stopping: once set, runs are asked to save and stop.
    cpus: of one run.
    gpus: of one run.

  Raises:
    ValueError: Ray is not installed.
  """
  try:
    import ray
  except ModuleNotFoundError as error:
    raise ValueError(
      "--backend=ray needs Ray: pip install 'alignax[ray]'. --backend=local "
      'needs nothing, and runs on this machine.'
    ) from error
  if not ray.is_initialized():
    paths = [os.getcwd(), os.environ.get('PYTHONPATH', '')]
    variables = {'PYTHONPATH': os.pathsep.join(filter(None, paths))}
    for name in ('ALIGNAX', 'JAX_PLATFORMS'):
      if name in os.environ:
        variables[name] = os.environ[name]
    ray.init(log_to_driver=False, runtime_env={'env_vars': variables})
  task = ray.remote(
    # `max_calls`: a new process a run, which leaves nothing behind.
    num_cpus=cpus,
    num_gpus=gpus,
    max_retries=RETRIES,
    max_calls=1,
  )(_execute)
  cwd = os.getcwd()

  def run_task(run, slot):
    del slot  # Ray places it.
    ref = task.options(name=run.name).remote(run, str(workdir), cwd, cpus)
    asked = False
    while not ray.wait([ref], timeout=POLL)[0]:
      if stopping.is_set() and not asked:
        ray.cancel(ref, force=False)  # An interrupt, which `execute` passes on.
        asked = True
    try:
      return Status(*ray.get(ref))
    except ray.exceptions.TaskCancelledError:
      return Status(state.STOPPED)
    except ray.exceptions.RayError as error:
      return Status(state.KILLED, f'Ray: {error}'[: state.ERROR])

  return run_task


def _execute(run, workdir: str, cwd: str, cpus: float):
  """On a node: Ray has set which GPUs are ours; cores are asked for by number.

  XLA makes as many threads as it sees cores, so it is shown as many as it has.
  """
  from alignax.sweeps import execute, local

  with own_cores(local.cores(), int(cpus)) as few:
    return tuple(execute.execute(run, workdir, cwd=cwd, cores=few))


@contextlib.contextmanager
def own_cores(cores: list[int], size: int):
  """Some cores that no other run of this machine has; None if none are left.

  A locked file says whose they are, for as long as its process lives: Ray
  counts cores, and does not number them.
  """
  folder = pathlib.Path(tempfile.gettempdir()) / f'alignax-cores-{os.getuid()}'
  folder.mkdir(exist_ok=True)
  for start in range(0, len(cores) - size + 1, size) if size else ():
    with (folder / f'{cores[start]}-{size}').open('w') as file:
      if try_lock(file):
        yield cores[start : start + size]
        return
  yield None
