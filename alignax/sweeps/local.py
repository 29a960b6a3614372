"""Backend: processes on this machine, with a share of its devices each."""

import os
import pathlib
import subprocess
import threading

from alignax.sweeps.execute import execute
from alignax.sweeps.schedule import Execute


def make_execute(workdir, jobs: int, stopping: threading.Event) -> Execute:
  """Executes runs here; every slot has its own GPU, or its own cores.

  A run that all others wait for has all cores; of GPUs never more than its
  slot, as its mesh, and so its batch, would be another. What one run compiled,
  those that differ in a seed or data alone load (52 -> 31 s of a tiny DPO run).
  """
  compiled = os.environ.get('JAX_COMPILATION_CACHE_DIR')
  compiled = compiled or str(pathlib.Path(workdir).absolute() / 'compiled')
  places = shares(jobs, cores(), gpus())
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


def shares(jobs: int, cores: list[int], gpus: list[str]) -> list[dict]:
  """What each of several jobs may use, as arguments of `execute`.

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
    parts = _deal(gpus, jobs)
    name = 'CUDA_VISIBLE_DEVICES'
    return [{'environment': {name: ','.join(part)}} for part in parts]
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
  if 'CUDA_VISIBLE_DEVICES' in environment:
    return [g for g in environment['CUDA_VISIBLE_DEVICES'].split(',') if g]
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
