"""One process at a time in the directory of a run."""

import contextlib
import fcntl
import pathlib

import jax


@contextlib.contextmanager
def alone(workdir):
  """Waits until nobody else trains in a directory, and keeps others waiting.

  The lock is the system's: it goes with the process, however that ends, and a
  file that is left behind locks nothing. Of several hosts the first takes it.
  It is not the lock of a sweep, which holds that while the run trains.
  """
  if jax.process_index():
    yield
    return
  with (pathlib.Path(workdir) / '.lock').open('w') as file:
    try:
      free = try_lock(file)
    except OSError:  # A file system without locks: then there are none.
      free = True
    if not free:
      print(f'{workdir}: another process trains there; waiting for its end.',
            flush=True)  # fmt: skip
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def try_lock(file) -> bool:
  """Locks an open file, unless another has."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True
