"""Our own format, and how directories are replaced as a whole.

A model is `model.json` (config, and shapes and types of the parameters) beside
`params/` (Orbax); a run has a `model.json` beside its checkpoints.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alignax import checkpoint
from alignax.models import convert, hf
from alignax.models.config import Config, RopeScaling
from alignax.models.model import Model
from alignax.types import Params

FORMAT, VERSION = 'alignax-model', 1
DESCRIPTION = 'model.json'
# A tree of shardings, or what makes one of the abstract params.
Shardings = Any | Callable[[Params], Any]


@dataclasses.dataclass(frozen=True)
class Place:
  """Puts one parameter at a time where it is to live.

  Attributes:
    dtype: of the parameters; None as they are stored.
    shardings: a tree of them, or what makes one of abstract params; None is the
      default device.
  """

  dtype: str | None
  shardings: Shardings | None

  def __call__(self, path: str, x: np.ndarray) -> jax.Array:
    spec = self.abstract(path, x)
    x = np.asarray(x, spec.dtype)
    # Also right where other processes own some of the devices.
    return jax.make_array_from_callback(
      x.shape, spec.sharding, lambda index: x[index]
    )

  def abstract(self, path: str, x: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of a parameter on its devices."""
    dtype = x.dtype if self.dtype is None else self.dtype
    spec = jax.ShapeDtypeStruct(x.shape, dtype)
    if self.shardings is None:
      device = jax.local_devices()[0]
      where = jax.sharding.SingleDeviceSharding(device)
    elif callable(self.shardings):
      where = jax.tree.leaves(self.shardings(convert.nest({path: spec})))[0]
    else:
      where = convert.flatten(self.shardings)[path]
    return jax.ShapeDtypeStruct(x.shape, dtype, sharding=where)


def write(directory: Path, model: Model, params: Params) -> None:
  """Writes a model into an existing directory."""
  checkpoint.save_tree(directory / 'params', params)
  write_description(directory, model, params)


def read(path: Path, put: Place) -> tuple[Config, Params]:
  """The model in a directory."""
  config, shapes = read_description(path)
  convert.check_params(config, shapes, f'The parameters in {path}')
  abstract = _abstract(shapes, put)
  return config, checkpoint.load_tree(path / 'params', abstract)


def _abstract(shapes: Params, put: Place) -> Params:
  return jax.tree_util.tree_map_with_path(
    lambda keys, x: put.abstract('/'.join(k.key for k in keys), x), shapes
  )


def read_run(path: Path, role: str | None, put: Place) -> tuple[Config, Params]:
  """One role of a run: the policy, or whatever is the only one, if None."""
  config, _ = read_description(path)
  role = default_role(path, role)
  stored = checkpoint.checkpoints_of(path)
  shapes = checkpoint.role_shapes(stored, role)
  convert.check_params(config, shapes, f'Role {role!r} in {path}')
  # Each array goes where it is to live: no device ever holds the whole model.
  return config, checkpoint.load_role(stored, role, _abstract(shapes, put))


def default_role(path: Path, role: str | None = None) -> str:
  """The role of a run that is meant where none is named."""
  roles = checkpoint.roles(checkpoint.checkpoints_of(path))
  return role or (roles[0] if len(roles) == 1 else 'policy')


def write_description(
  directory: Path,
  model: Model,
  params: Params | None = None,
  *,
  lora: dict | None = None,
) -> None:
  """Writes model.json: the config and, of `params`, shapes and dtypes.

  A run's directory has one without `params`: its checkpoints hold several
  roles of this architecture. `lora` says of what adapters these are, where it
  is no whole model; see `adapters`.
  """
  if jax.process_index():
    return
  value = dict(
    format=FORMAT, version=VERSION, config=dataclasses.asdict(model.config)
  )
  if params is not None:
    value['params'] = {
      path: [list(x.shape), str(x.dtype)]
      for path, x in convert.flatten(params).items()
    }
  if lora is not None:
    value['lora'] = lora
  text = json.dumps(value, indent=2)
  (Path(directory) / DESCRIPTION).write_text(text + '\n')


def read_description(directory: Path) -> tuple[Config, Params]:
  """The config and the abstract params in a model.json."""
  path = checkpoint.run_of(directory) / DESCRIPTION
  value = hf.read_json(path)
  if value.get('format') != FORMAT or value.get('version', 0) > VERSION:
    raise ValueError(
      f'{path} has format {value.get("format")!r} version '
      f'{value.get("version")!r}; this alignax reads {FORMAT!r} up to version '
      f'{VERSION}.'
    )
  try:
    config = _config(value['config'])
  except (KeyError, TypeError) as error:
    raise ValueError(f'{path} describes no known model: {error}.') from error
  shapes = {
    name: jax.ShapeDtypeStruct(shape, dtype)
    for name, (shape, dtype) in value.get('params', {}).items()
  }
  return config, convert.nest(shapes)


def _config(fields: dict[str, Any]) -> Config:
  fields = fields | dict(local_layers=tuple(fields['local_layers']))
  if fields['rope_scaling'] is not None:
    fields['rope_scaling'] = RopeScaling(**fields['rope_scaling'])
  return Config(**fields)


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
  """A new directory that takes the place of an old one when it is whole."""
  directory = directory.absolute()
  new = directory.with_name(f'.{directory.name}.new')
  old = directory.with_name(f'.{directory.name}.old')
  if old.exists() and not directory.exists():  # Killed between the renames.
    old.rename(directory)
  for path in (new, old):
    shutil.rmtree(path, ignore_errors=True)
  new.mkdir(parents=True)
  try:
    yield new
    if directory.exists():
      directory.rename(old)
    new.rename(directory)
  except OSError as error:
    if old.exists() and not directory.exists():
      old.rename(directory)
    if error.errno is None:  # Ours, which says what is wrong.
      raise
    raise OSError(
      f'Saving to {directory} failed ({error}); what was there is unchanged.'
    ) from error
  finally:
    shutil.rmtree(new, ignore_errors=True)
    if directory.exists():
      shutil.rmtree(old, ignore_errors=True)
