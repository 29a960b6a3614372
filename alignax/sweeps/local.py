"""Backend: processes on this machine, with a share of its devices each."""

import itertools
import os
import pathlib
import subprocess
import threading

from alignax.sweeps.execute import execute
from alignax.sweeps.schedule import Execute

# What says which GPUs a process may see: of CUDA, and of ROCm, which heeds the
# first as well.
VISIBLE = (
  'CUDA_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES', 'ROCR_VISIBLE_DEVICES',
)  # fmt: skip


def make_execute(workdir, jobs: int, stopping: threading.Event) -> Execute:
  """Executes runs here; every slot has its own GPU, or its own cores.

  A run that all others wait for has all cores; of GPUs never more than its
  slot, as its mesh, and so its batch, would be another. What one run compiled,
  those that differ in a seed or data alone load (52 -> 31 s of a tiny DPO run).

  Raises:
    ValueError: more jobs than this machine has devices for.
  """
  compiled = os.environ.get('JAX_COMPILATION_CACHE_DIR')
  compiled = compiled or str(pathlib.Path(workdir).absolute() / 'compiled')
  if jobs > 1 and has_tpu():
    raise ValueError(
      f'--jobs={jobs}, but this machine has a TPU, all of whose chips a run '
      'takes: give --jobs=1, or set JAX_PLATFORMS=cpu.'
    )
  found = gpus()
  places = shares(jobs, cores(), found, visible())
  if idle := len(found) % jobs:
    print(f'{idle} of {len(found)} GPUs are idle: all runs have as many.')
  for place in places:
    place.setdefault('environment', {})['JAX_COMPILATION_CACHE_DIR'] = compiled
  alone = {k: v for k, v in places[0].items() if k != 'cores'}
  return lambda run, slot: execute(
    run,
    workdir,
    stopping=stopping,
    **(alone if slot is None else places[slot]),
  )


def default_jobs() -> int:
  """One a GPU; on CPUs one, as jax uses all cores that it finds."""
  return max(1, len(gpus()))


def shares(
  jobs: int, cores: list[int], gpus: list[str], variable: str = VISIBLE[0]
) -> list[dict]:
  """What each of several jobs may use, as arguments of `execute`.

  All have as many GPUs, so that the runs of a sweep are all on the same mesh.

  Raises:
    ValueError: more jobs than GPUs, each of which jax takes whole.
  """
  if gpus:
    if jobs > len(gpus):
      raise ValueError(
        f'--jobs={jobs}, but there are {len(gpus)} GPUs, and a run takes all '
        f'memory of its own: give at most --jobs={len(gpus)}, or set '
        'JAX_PLATFORMS=cpu.'
      )
    parts = _deal(gpus[: len(gpus) // jobs * jobs], jobs)
    return [{'environment': {variable: ','.join(part)}} for part in parts]
  if not cores:
    return [{}] * jobs
  if jobs > len(cores):  # Some share a core.
    return [{'cores': [cores[i % len(cores)]]} for i in range(jobs)]
  return [{'cores': part} for part in _deal(cores, jobs)]


def _deal(things: list, jobs: int) -> list[list]:
  """Neighbours together: cores that are share a cache."""
  cuts = [i * len(things) // jobs for i in range(jobs + 1)]
  return [things[a:b] for a, b in zip(cuts, cuts[1:])]


def cores() -> list[int]:
  """Those that this process may use; none where that cannot be said."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return []


def gpus(environment=os.environ) -> list[str]:
  """The GPUs that jax would use, found without waking them."""
  if environment.get('JAX_PLATFORMS', '').startswith('cpu'):
    return []
  if visible(environment) in environment:
    given = environment[visible(environment)].split(',')
    # What follows an index that is none is not seen either.
    seen = itertools.takewhile(lambda g: g not in ('', '-1'), given)
    return list(seen)
  if not pathlib.Path('/dev/nvidiactl').exists():
    return []
  try:
    found = subprocess.run(
      ['nvidia-smi', '--query-gpu=index', '--format=csv,noheader'],
      capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
  except (OSError, subprocess.SubprocessError):
    return []
  return found.stdout.split()


def visible(environment=os.environ) -> str:
  """The variable that says which GPUs are ours, or would."""
  return next((name for name in VISIBLE if name in environment), VISIBLE[0])


def has_tpu(environment=os.environ, devices='/dev') -> bool:
  """Whether jax would use a TPU, found without waking it."""
  platforms = environment.get('JAX_PLATFORMS', '')
  if platforms:
    return 'tpu' in platforms.split(',')
  # Numbers only: /dev/vfio/vfio and /dev/accel/ are of other machines too.
  files = ('accel[0-9]*', 'vfio/[0-9]*')
  found = any(any(pathlib.Path(devices).glob(name)) for name in files)
  found = found or 'TPU_WORKER_ID' in environment
  return found and not gpus(environment)
