"""Checkers from outside of the library, most of them with a fault."""

import os
import random
import subprocess
import sys
import time


def words(row, response, *, factor=1):
  return factor * len(response.split()) + row.get('more', 0)


def several(row, response):
  return {'total': 0.5, 'form': 1, 'style': True}


def only_form(row, response):
  return {'form': 1.0}


def drawn(row, response):
  return random.random() + hash(response) % 7


def talks(row, response):
  print('{"numbers": {"total": -1}}')
  return 1.0


def sees_jax(row, response):
  return {'total': 'jaxlib' in sys.modules, 'pid': os.getpid()}


def faulty(row, response):
  """Does what it is told to."""
  if response == 'raise':
    raise KeyError('no such thing')
  if response == 'hang':
    subprocess.Popen(['sleep', '31537'])  # A child, which must not stay either.
    while True:
      time.sleep(1)
  if response == 'exit':
    os._exit(3)
  if response == 'nan':
    return float('nan')
  if response == 'text':
    return '1.0'
  return 1.0


def pids(row, response):
  time.sleep(0.05)
  return os.getpid()


def often_faulty(row, response):
  """Fails on about half of what it is given, always on the same."""
  if sum(map(ord, response)) % 2:
    raise ValueError('odd')
  return 1.0
