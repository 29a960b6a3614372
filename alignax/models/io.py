"""Loading and storing models.

A model is loaded from a directory that `save` wrote, a Hugging Face directory,
a GGUF file, a name on the Hugging Face hub, or the directory of a run. Saved,
it is a directory of

  model.json       config and shapes
  params/          Orbax
  tokenizer.json   and the other files of the tokenizer
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alignax import checkpoint
from alignax.models import convert, gguf, gguf_tokenizer, hf
from alignax.models.config import Config, RopeScaling
from alignax.models.model import Model
from alignax.types import Params

FORMAT, VERSION = 'alignax-model', 1
DESCRIPTION = 'model.json'
TOKENIZER_FILES = (
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
  'generation_config.json',
)
# A tree of shardings, or what makes one of the abstract params.
Shardings = Any | Callable[[Params], Any]


def load(
  where: str | Path,
  *,
  dtype: str | None = None,
  param_dtype: str | None = 'float32',
  remat: str | None = None,
  role: str | None = None,
  shardings: Shardings | None = None,
) -> tuple[Model, Params]:
  """A model and its parameters.

  Args:
    where: a directory or file, a run's directory, or a name on the hub.
    dtype: of the computation; None for what was saved, or float32.
    param_dtype: of the parameters; None as they are stored.
    remat: what the backward pass recomputes; see `Config`.
    role: which of the roles in a run's directory; None for the policy, or
      whatever else is the only one.
    shardings: where each parameter lives: a tree of shardings, or a function
      from abstract parameters to one. None is the default device.

  Raises:
    ValueError: a corrupt file, or an architecture that is not supported.
    FileNotFoundError: naming what is missing.
  """
  source = locate(where)
  place = _Place(param_dtype, shardings)
  config, params = READERS[kind_of(source)](source, role, place)
  changes = dict(dtype=dtype, remat=remat)
  changes = {k: v for k, v in changes.items() if v is not None}
  return Model(dataclasses.replace(config, **changes)), params


def save(
  directory: str | Path, model: Model, params: Params, tokenizer: Any = None
) -> None:
  """Writes a directory that `load` reads.

  Args:
    directory: where; replaced as a whole if it holds a model already, and
      kept as it is if anything goes wrong.
    model: of `params`.
    params: arrays in any dtype; kept bit for bit.
    tokenizer: a transformers tokenizer, or the directory or GGUF file to take
      one from.
  """
  convert.check_params(model.config, params)
  with _replacing(Path(directory)) as new:
    checkpoint.save_tree(new / 'params', params)
    write_description(new, model, params)
    copy_tokenizer(tokenizer, new)


def export(
  directory: str | Path,
  model: Model,
  params: Params,
  tokenizer: Any = None,
  *,
  shard_bytes: int = hf.SHARD_BYTES,
) -> None:
  """Writes a Hugging Face directory; arguments as of `save`."""
  with _replacing(Path(directory)) as new:
    copy_tokenizer(tokenizer, new)
    ids = token_ids(new)
    hf.write(
      new, model.config, params, token_ids=ids, shard_bytes=shard_bytes
    )


def locate(where: str | Path) -> Path:
  """The path of a model: itself, or where the hub's files were put."""
  path = Path(where)
  if path.exists():
    return path
  if not re.fullmatch(r'[\w.-]+/[\w.-]+', str(where)):
    raise FileNotFoundError(
      f'{where} does not exist, and is no name on the hub (ORGANISATION/NAME).'
    )
  return _download(str(where))


def _download(name: str) -> Path:
  import huggingface_hub

  patterns = ['*.json', '*.safetensors', 'tokenizer.model', '*.txt', '*.jinja']
  try:
    return Path(
      huggingface_hub.snapshot_download(name, allow_patterns=patterns)
    )
  except Exception as error:  # Offline, not found, gated: many types.
    raise FileNotFoundError(
      f'{name} is no path on this machine, and could not be taken from the '
      f'hub ({type(error).__name__}: {error}). Offline, pass a directory or a '
      'GGUF file.'
    ) from error


def kind_of(path: Path) -> str:
  """What is stored at a path: 'native', 'run', 'hf' or 'gguf'."""
  if path.is_file():
    if path.suffix == '.gguf':
      return 'gguf'
    raise ValueError(f'{path} is a file, but not a .gguf file.')
  if (path / DESCRIPTION).exists():
    return 'native' if (path / 'params').exists() else 'run'
  if (path / 'config.json').exists():
    return 'hf'
  raise FileNotFoundError(
    f'{path} holds no model: neither {DESCRIPTION} (alignax) nor config.json '
    f'(Hugging Face); it holds {sorted(p.name for p in path.iterdir())}.'
  )


def _read_gguf(path: Path, role: str | None, place) -> tuple[Config, Params]:
  del role
  return gguf.read(path, place=place)


def _read_hf(path: Path, role: str | None, place) -> tuple[Config, Params]:
  del role
  config = hf.read_config(path)
  return config, hf.read_params(path, config, place=place)


def _read_native(path: Path, role: str | None, place) -> tuple[Config, Params]:
  del role
  config, shapes = read_description(path)
  convert.check_params(config, shapes, f'The parameters in {path}')
  abstract = jax.tree_util.tree_map_with_path(
    lambda keys, x: place.abstract('/'.join(k.key for k in keys), x), shapes
  )
  return config, checkpoint.load_tree(path / 'params', abstract)


def _read_run(path: Path, role: str | None, place) -> tuple[Config, Params]:
  config, _ = read_description(path)
  roles = checkpoint.roles(path / 'checkpoints')
  if role is None:
    role = roles[0] if len(roles) == 1 else 'policy'
  params = checkpoint.load_role(path / 'checkpoints', role)
  convert.check_params(config, params, f'Role {role!r} in {path}')
  return config, convert.nest(
    {name: place(name, np.asarray(x))
     for name, x in convert.flatten(params).items()}
  )


READERS = {
  'gguf': _read_gguf,
  'hf': _read_hf,
  'native': _read_native,
  'run': _read_run,
}


def write_description(
  directory: Path, model: Model, params: Params | None = None
) -> None:
  """Writes model.json: the config and, of `params`, shapes and dtypes.

  A run's directory has one without `params`: its checkpoints hold several
  roles of this architecture.
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
  text = json.dumps(value, indent=2)
  (Path(directory) / DESCRIPTION).write_text(text + '\n')


def read_description(directory: Path) -> tuple[Config, Params]:
  """The config and the abstract params in a model.json."""
  path = Path(directory) / DESCRIPTION
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


def copy_tokenizer(source: Any, directory: Path) -> None:
  """Puts a tokenizer's files into a directory; see `save`."""
  if source is None:
    return
  if hasattr(source, 'save_pretrained'):
    source.save_pretrained(directory)
    return
  path = locate(source)
  if path.is_file():
    gguf_tokenizer.write(path, directory)
    return
  files = [path / name for name in TOKENIZER_FILES if (path / name).exists()]
  if not any(f.name in ('tokenizer.json', 'tokenizer.model') for f in files):
    raise FileNotFoundError(
      f'{path} has no tokenizer: neither tokenizer.json nor tokenizer.model.'
    )
  for file in files:
    shutil.copyfile(file, directory / file.name)


def token_ids(directory: Path) -> dict[str, Any]:
  """Ids of the special tokens of the tokenizer in a directory."""
  names = ('bos_token_id', 'eos_token_id', 'pad_token_id')
  ids = {}
  if (directory / 'tokenizer_config.json').exists():
    ids = _tokenizer_ids(directory)
  if (directory / 'generation_config.json').exists():
    # It may name several ends, of which the tokenizer knows one.
    ids |= hf.read_json(directory / 'generation_config.json')
  return {name: ids[name] for name in names if ids.get(name) is not None}


def _tokenizer_ids(directory: Path) -> dict[str, int | None]:
  # Not through transformers, whose import takes longer than all the rest.
  import tokenizers

  path = directory / 'tokenizer.json'
  if not path.exists():
    return {}
  tokenizer = tokenizers.Tokenizer.from_file(str(path))
  settings = hf.read_json(directory / 'tokenizer_config.json')
  ids = {}
  for role in ('bos', 'eos', 'pad'):
    token = settings.get(f'{role}_token')
    token = token['content'] if isinstance(token, dict) else token
    if token is not None:
      ids[f'{role}_token_id'] = tokenizer.token_to_id(token)
  return ids


@contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
  """A new directory that takes the place of an old one when it is whole."""
  directory = directory.absolute()
  if directory.exists() and any(directory.iterdir()):
    found = sorted(p.name for p in directory.iterdir())
    if kind_of_or_none(directory) not in ('native', 'hf'):
      raise FileExistsError(
        f'{directory} is not empty and holds no model ({found[:5]}): choose '
        'another directory.'
      )
  new = directory.with_name(f'.{directory.name}.new')
  old = directory.with_name(f'.{directory.name}.old')
  for path in (new, old):
    shutil.rmtree(path, ignore_errors=True)
  new.mkdir(parents=True)
  try:
    yield new
    if directory.exists():
      directory.rename(old)
    new.rename(directory)
  except OSError as error:
    if error.errno is None:  # Ours, which says what is wrong.
      raise
    raise OSError(
      f'Saving to {directory} failed ({error}); what was there is unchanged.'
    ) from error
  finally:
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def kind_of_or_none(path: Path) -> str | None:
  """As `kind_of`, None where there is no model."""
  try:
    return kind_of(path)
  except (FileNotFoundError, ValueError):
    return None


@dataclasses.dataclass(frozen=True)
class _Place:
  """Puts one parameter at a time where it is to live."""

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
