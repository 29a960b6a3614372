"""Keeping memory that a CPU run will need again at the next step."""

import ctypes
import sys

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_memory():
  """Has malloc keep freed memory instead of returning it to the kernel.

  XLA on CPU allocates the buffers of a step anew at every step. By default each
  large one is mapped and unmapped, so every step pays a page fault for every
  4 KiB that it touches. On systems without glibc nothing happens.
  """
  if not sys.platform.startswith('linux'):
    return
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is None:
    return
  for option, value in (
    (M_MMAP_MAX, 0),
    (M_TRIM_THRESHOLD, 2**31 - 1),
    (M_TOP_PAD, 2**26),
    (M_ARENA_MAX, 1),
  ):
    mallopt(option, value)
