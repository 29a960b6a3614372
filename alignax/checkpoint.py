"""Checkpoints: the only file that knows Orbax.

A checkpoint of a run holds the trained parameters role by role, their moving
averages likewise where the run keeps some, and apart from them what only the
same run can use (optimiser, counters). So another run reads one role without
knowing the optimiser, on any mesh.
"""

import errno
import pathlib
import re
import shutil
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from alignax.train import TrainState

# Prefixes of the items that hold a role's parameters, and their average.
ROLE, AVERAGE = 'params_', 'ema_'
# What the errors of TensorStore, which have no errno, say of a full disk.
FULL = 'no space left|RESOURCE_EXHAUSTED|quota|file too large'


class CheckpointError(RuntimeError):
  """A checkpoint could not be written or read; the message says which."""


class Checkpointer:
  """Saves and restores a `TrainState`, in the background, keeping the best.

  A save becomes visible by a rename when it is whole: a process killed in the
  middle of one leaves the previous checkpoint as the latest.
  """

  def __init__(
    self, directory, *, keep: int = 2, keep_best: int = 0, best_metric: str = ''
  ):
    """Opens or makes a directory of checkpoints.

    Args:
      directory: where; made if it does not exist.
      keep: how many of the latest are kept.
      keep_best: how many of those with the largest `best_metric` are kept too.
      best_metric: name of a metric given to `save`; a leading '-' makes the
        smallest the best.
    """
    self.directory = pathlib.Path(directory).absolute()
    policies = ocp.training.preservation_policies
    keeps = [policies.LatestN(keep)]
    if keep_best:
      sign = -1.0 if best_metric.startswith('-') else 1.0
      name = best_metric.lstrip('-')
      keeps.append(
        policies.BestN(
          get_metric_fn=lambda metrics: sign * metrics[name],
          n=keep_best,
          keep_checkpoints_without_metrics=False,
        )
      )
    self._orbax = ocp.training.Checkpointer(
      self.directory,
      preservation_policy=policies.AnyPreservationPolicy(keeps),
      cleanup_tmp_directories=True,
    )

  @property
  def latest(self) -> int | None:
    """Step of the newest whole checkpoint, or None."""
    return None if self._orbax.latest is None else self._orbax.latest.step

  def save(
    self,
    step: int,
    state: TrainState,
    metrics: dict | None = None,
    note: dict | None = None,
  ):
    """Starts to save; training goes on while the files are written.

    Args:
      step: number of the checkpoint.
      state: what is saved.
      metrics: of this very step; by them the best are kept.
      note: plain numbers and text to keep with it; see `note`.
    """
    items = _items(state)
    with self._explained(f'save of step {step}'):
      # Waits for the save before this one, and raises what went wrong in it.
      self._orbax.save_checkpointables_async(
        step, items, force=True, metrics=metrics, custom_metadata=note
      )

  def note(self, step: int) -> dict:
    """What was noted with the checkpoint of a step."""
    with self._explained(f'read of the note of step {step}'):
      return self._orbax.checkpointables_metadata(step).custom_metadata or {}

  def restore(self, state: Any, step: int | None = None) -> TrainState:
    """The state at `step`, or the latest.

    Args:
      state: what it looks like; arrays or `ShapeDtypeStruct`s, whose shardings
        say where it is to live: not necessarily where it lived when saved.
      step: of the checkpoint.
    """
    with self._explained('restore'):
      loaded = self._orbax.load_checkpointables(step, _items(state))
    params = {role: loaded[f'{ROLE}{role}'] for role in state.params}
    ema = {role: loaded[f'{AVERAGE}{role}'] for role in state.ema or {}}
    return state.replace(params=params, ema=ema or None, **loaded['rest'])

  def wait(self):
    """Blocks until everything is on disk."""
    with self._explained('save'):
      self._orbax.wait()

  def close(self):
    with self._explained('save'):
      self._orbax.close()

  def _explained(self, what: str):
    return _Explained(f'{what} in {self.directory}')


class _Explained:
  """Turns errors of the file system into one that says what is still good."""

  def __init__(self, what: str):
    self.what = what

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    if error is None or not isinstance(error, Exception):
      return
    text = str(error)
    full = getattr(error, 'errno', None) in (
      errno.ENOSPC,
      errno.EDQUOT,
      errno.EFBIG,
    )
    if full or re.search(FULL, text, re.I):
      raise CheckpointError(
        f'The disk is full (or a limit on files is reached): {self.what} '
        'failed. Earlier checkpoints are untouched; free some space, or lower '
        'checkpoint.keep, and run the same command again.'
      ) from error
    raise CheckpointError(f'Failed: {self.what}: {text}') from error


def _items(state: TrainState) -> dict[str, Any]:
  """A state by the names under which it is stored."""
  names = ('step', 'opt_state', 'extra', 'skipped', 'skipped_total')
  items = {f'{ROLE}{role}': tree for role, tree in state.params.items()}
  items |= {f'{AVERAGE}{role}': x for role, x in (state.ema or {}).items()}
  rest = {name: getattr(state, name) for name in names}
  return items | {'rest': _drop_empty(rest)}


def run_of(path) -> pathlib.Path:
  """The directory of a run; it may be named by one of its checkpoints.

  'runs/a/checkpoints/40' is the run of runs/a as it was at step 40.
  """
  path = pathlib.Path(path)
  absolute = path.absolute()
  step = absolute.parent.name == 'checkpoints' and absolute.name.isdigit()
  return absolute.parent.parent if step else path


def checkpoints_of(path) -> pathlib.Path:
  """The checkpoints of a run, or the one by which it is named."""
  path, run = pathlib.Path(path), run_of(path)
  return path / 'checkpoints' if run == path else path


def latest_step(directory) -> int | None:
  """Step of a run's newest whole checkpoint, or None."""
  paths = pathlib.Path(directory).glob('*')
  return max((int(p.name) for p in paths if p.name.isdigit()), default=None)


def drop_after(directory, step: int):
  """Removes a run's checkpoints of later steps; `step` must be there."""
  require_step(directory, step)
  for path in pathlib.Path(directory).glob('*'):
    if path.name.isdigit() and int(path.name) > step:
      shutil.rmtree(path)


def require_step(directory, step: int):
  if not (pathlib.Path(directory) / str(step)).exists():
    raise CheckpointError(f'{directory} has no checkpoint of step {step}.')


def roles(directory) -> tuple[str, ...]:
  """Names of the roles in a run's newest checkpoint."""
  path = _latest_path(directory)
  names = [p.name for p in path.iterdir() if p.name.startswith(ROLE)]
  return tuple(sorted(name.removeprefix(ROLE) for name in names))


def load_role(directory, role: str, abstract: Any = None) -> Any:
  """The parameters of a role in a run's newest checkpoint.

  Of a run that averages its parameters (`ema_decay`), the average.

  Args:
    directory: the run's `checkpoints` folder, or a single one in there.
    role: 'policy', 'reward', ...
    abstract: what they look like, or None for what was saved, unsharded.
  """
  path = _latest_path(directory)
  return load_item(path, _item_of(path, role, directory), abstract)


def role_shapes(directory, role: str) -> Any:
  """Shapes and types of a role in a run's newest checkpoint."""
  path = _latest_path(directory)
  name = _item_of(path, role, directory)
  with _Explained(f'read of the shapes of {role} in {path}'):
    return on_one_device(_metadata(path, name))


def _item_of(path, role: str, directory) -> str:
  """The item of a role that others read: the average, where there is one."""
  for prefix in (AVERAGE, ROLE):
    if (path / f'{prefix}{role}').exists():
      return f'{prefix}{role}'
  raise CheckpointError(
    f'{path} has no role {role!r}; it has {", ".join(roles(directory))}.'
  )


def _metadata(path, name: str) -> Any:
  return ocp.checkpointables_metadata(path).metadata[name]


def load_item(path, name: str, abstract: Any = None) -> Any:
  """One named item of one checkpoint."""
  with _Explained(f'read of {name} in {path}'):
    if abstract is None:
      abstract = on_one_device(_metadata(path, name))
    return ocp.load_checkpointables(path, {name: abstract})[name]


def save_tree(path, tree: Any):
  """Writes one pytree of arrays to a folder, replacing what is there."""
  with _Explained(f'save of {path}'):
    ocp.save(pathlib.Path(path).absolute(), tree, overwrite=True)


def load_tree(path, abstract: Any = None) -> Any:
  """Reads what `save_tree` wrote, where `abstract` says, or on one device."""
  path = pathlib.Path(path).absolute()
  if not path.is_dir():
    raise CheckpointError(f'There is no saved tree at {path}.')
  return load_item(path, 'state', abstract)


def on_one_device(tree: Any) -> Any:
  """Shapes of a tree, to live on the first device whatever it lived on."""
  where = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree
  )


def _drop_empty(tree: dict) -> dict:
  return {k: v for k, v in tree.items() if jax.tree.leaves(v)}


def _latest_path(directory) -> pathlib.Path:
  directory = pathlib.Path(directory).absolute()
  if directory.name.isdigit() and directory.parent.name == 'checkpoints':
    return directory
  step = latest_step(directory)
  if step is None:
    raise CheckpointError(f'{directory} holds no checkpoint.')
  return directory / str(step)
