"""Whether a run is over: at its last step, or ended before, on purpose.

A run that ends before its last step has its best checkpoint as the last one,
and an `ended.json` that says why; without that file it would go on from there.
"""

import json
import pathlib

import jax

from alignax import checkpoint, metrics

ENDED = 'ended.json'


def is_complete(workdir, total_steps: int) -> bool:
  """Whether there is nothing left to train."""
  if ended(workdir):
    return True
  step = checkpoint.latest_step(pathlib.Path(workdir) / 'checkpoints')
  return step is not None and step >= total_steps


def ended(workdir) -> dict | None:
  """Where a run ended before its last step, and why; None if it did not."""
  path = pathlib.Path(workdir) / ENDED
  return json.loads(path.read_text()) if path.exists() else None


def end(workdir, step: int, reason: str):
  """Ends a run at an earlier step, whose checkpoint becomes the last.

  What was measured after it stays: it is the reason.
  """
  if jax.process_index():
    return
  path = pathlib.Path(workdir) / ENDED
  note = {'step': step, 'reason': reason}
  checkpoint.require_step(pathlib.Path(workdir) / 'checkpoints', step)
  # First the note: a kill in between leaves a run that is over.
  metrics.write_text(path, json.dumps(note, indent=2) + '\n')
  checkpoint.drop_after(pathlib.Path(workdir) / 'checkpoints', step)
