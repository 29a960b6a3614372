"""What a process of `alignax.rewards.pool` runs: one checker, line by line.

It is run as a file, reads requests as lines of JSON and answers each by a line:

  {"path": [...], "checker": "module.function", "kw": {...}, "timeout": 5.0}
      -> {}, or {"error": "..."}                         once, at the start
  {"row": {...}, "response": "..."}
      -> {"numbers": {"total": 1.0}}, or {"error": "..."}

The standard library alone is imported here: what a checker needs, it imports.
"""

import importlib
import json
import math
import os
import random
import signal
import sys

SLACK = 10  # Seconds that the pool has to kill what takes too long.


def main():
  # Checkers may print; their answers go where nothing else is written.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  lines = iter(sys.stdin.readline, '')
  checker = None
  for line in lines:
    request = json.loads(line)
    try:
      if checker is None:
        checker, kw, limit = load(**request)
        answer = {}
      else:
        answer = {'numbers': check(checker, request, kw, limit)}
    except Exception as error:  # A checker may raise whatever it likes.
      answer = {'error': f'{type(error).__name__}: {error}'}
    answers.write(json.dumps(answer) + '\n')
    answers.flush()


def load(path, checker, kw, timeout):
  """The function of a dotted name, its arguments, and its limit in seconds."""
  sys.path[:] = path
  module, function = checker.rsplit('.', 1)
  return getattr(importlib.import_module(module), function), kw, timeout


def check(checker, request, kw, limit) -> dict[str, float]:
  random.seed(0)  # A response's score depends on nothing but the response.
  # The pool kills what takes too long. Should the pool itself be gone by then,
  # the alarm does: a process that hangs would otherwise stay for good.
  signal.alarm(math.ceil(limit) + SLACK)
  try:
    return numbers(checker(request['row'], request['response'], **kw))
  finally:
    signal.alarm(0)


def numbers(found) -> dict[str, float]:
  """What a checker returned, as numbers by name."""
  found = found if isinstance(found, dict) else {'total': found}
  for name, value in found.items():
    if isinstance(value, str) or not hasattr(value, '__float__'):
      kind = type(value).__name__
      raise TypeError(f'{name!r} is {kind} {value!r}, expected a number')
  return {str(name): float(value) for name, value in found.items()}


if __name__ == '__main__':
  main()
