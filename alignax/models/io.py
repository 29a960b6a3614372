"""Loading and storing models.

A model is loaded from a directory that `save` wrote, a Hugging Face directory,
a GGUF file, a name on the Hugging Face hub, the directory of a run (or of one
of its checkpoints), or one of adapters (ours or PEFT's) whose base is found.
Saved, it is a directory of

  model.json       config and shapes
  params/          Orbax
  tokenizer.json   and the other files of the tokenizer
"""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from alignax import checkpoint
from alignax.models import adapters, convert, gguf, hf, native, peft
from alignax.models.config import Config
from alignax.models.model import Model
from alignax.models.native import Place, Shardings
from alignax.models.tokenizer_files import (
  copy_tokenizer,
  has_tokenizer,
  token_ids,
)
from alignax.types import Params

Loaded = tuple[Config, Params]


def load(
  where: str | Path,
  *,
  dtype: str | None = None,
  param_dtype: str | None = 'float32',
  remat: str | None = None,
  role: str | None = None,
  shardings: Shardings | None = None,
  base: str | Path | None = None,
) -> tuple[Model, Params]:
  """A model and its parameters; adapters are merged into their base.

  Args:
    where: a directory or file, a run's directory or that of one of its
      checkpoints, or a name on the hub.
    dtype: of the computation; None for what was saved, or float32.
    param_dtype: of the parameters; None as they are stored.
    remat: what the backward pass recomputes; see `Config`.
    role: which of the roles in a run's directory; None for the policy, or
      whatever else is the only one.
    shardings: where each parameter lives: a tree of shardings, or a function
      from abstract parameters to one. None is the default device.
    base: of adapters, if it is not where they say; see `alignax.lora`.

  Raises:
    ValueError: a corrupt file, or an architecture that is not supported.
    FileNotFoundError: naming what is missing.
  """
  source = locate(where)
  put = Place(param_dtype, shardings)
  if adapters.describe(source) is None:
    config, params = READERS[kind_of(source)](source, role, put)
  else:
    config, params = _read_adapted(source, role, put, base)
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
    native.write(new, model, params)
    _put_tokenizer(tokenizer, new)


def export(
  directory: str | Path,
  model: Model,
  params: Params,
  tokenizer: Any = None,
  *,
  shard_bytes: int = hf.SHARD_BYTES,
) -> None:
  """Writes a Hugging Face directory; arguments as of `save`."""
  convert.check_params(model.config, params)
  with _replacing(Path(directory)) as new:
    _put_tokenizer(tokenizer, new)
    ids = token_ids(new)
    hf.write(new, model.config, params, token_ids=ids, shard_bytes=shard_bytes)


def load_adapters(
  where: str | Path, *, role: str | None = None, base: str | Path | None = None
) -> tuple[Model, adapters.Origin, Params]:
  """Adapters as they were trained, what they are, and the model of their base.

  The weights of the base are not read where its own directory has a config.

  Args:
    where: a run of LoRA, a directory of adapters, or one of PEFT.
    role: as for `load`.
    base: as for `load`.
  """
  source = locate(where)
  origin = adapters.describe(source)
  if origin is None:
    raise ValueError(f'{where} holds a whole model, and no adapters.')
  base = str(base or origin.base)
  if (checkpoint.run_of(source) / native.DESCRIPTION).exists():
    config, _ = native.read_description(source)
  else:
    config = load(_locate_base(source, base))[0].config
  settings, tree = adapters.read(source, config, role)
  return Model(config), adapters.Origin(settings, base), tree


def is_adapter(where: str | Path) -> bool:
  """Whether adapters are stored there, and no whole model."""
  return adapters.describe(locate(where)) is not None


def tokenizer_source(
  where: str | Path, *, base: str | Path | None = None
) -> Path:
  """Where the tokenizer of a stored model is: with adapters, or their base."""
  source = checkpoint.run_of(locate(where))
  origin = adapters.describe(source)
  if origin is None or has_tokenizer(source):
    return source
  return tokenizer_source(_locate_base(source, str(base or origin.base)))


def save_adapters(
  directory: str | Path,
  model: Model,
  origin: adapters.Origin,
  tree: Params,
  tokenizer: Any = None,
  *,
  peft_layout: bool = False,
) -> None:
  """Writes adapters as a directory of ours, or of PEFT."""
  adapters.check(model.config, origin.settings, tree, 'adapters')
  write = peft.write if peft_layout else adapters.write
  with _replacing(Path(directory)) as new:
    write(new, model.config, origin.settings, tree, base=origin.base)
    _put_tokenizer(tokenizer, new)


def _read_adapted(source: Path, role, put: Place, base) -> Loaded:
  origin = adapters.describe(source)
  base = _locate_base(source, str(base or origin.base))
  # As it is stored: the sum with the adapters is rounded once, to `put.dtype`.
  model, whole = load(base, param_dtype=None)
  settings, tree = adapters.read(source, model.config, role)
  if kind_of(source) == 'run':
    role = native.default_role(source, role)
  merged = adapters.merged(
    model.config, whole, settings, tree, keep_lm_head=role == 'policy'
  )
  place = lambda path, x: put('/'.join(k.key for k in path), x)
  return model.config, jax.tree_util.tree_map_with_path(place, merged)


def _locate_base(source: Path, base: str) -> Path:
  try:
    if not base:
      raise FileNotFoundError('it does not say where.')
    return locate(base)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{source} holds adapters of a base that was not found: {error} Say '
      'where it is with --base, or base=.'
    ) from error


def _put_tokenizer(source: Any, directory: Path) -> None:
  if source is not None and not hasattr(source, 'save_pretrained'):
    source = locate(source)
  copy_tokenizer(source, directory)


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
      huggingface_hub.snapshot_download(
        name, allow_patterns=patterns, ignore_patterns=['*/*']
      )
    )
  except Exception as error:  # Offline, not found, gated: many types.
    raise FileNotFoundError(
      f'{name} is no path on this machine, and could not be taken from the '
      f'hub ({type(error).__name__}: {error}). Offline, pass a directory or a '
      'GGUF file.'
    ) from error


def kind_of(path: Path) -> str:
  """What is stored at a path: 'native', 'run', 'peft', 'hf' or 'gguf'."""
  if path.is_file():
    if path.suffix == '.gguf':
      return 'gguf'
    raise ValueError(f'{path} is a file, but not a .gguf file.')
  if (checkpoint.run_of(path) / native.DESCRIPTION).exists():
    return 'native' if (path / 'params').exists() else 'run'
  if (path / peft.DESCRIPTION).exists():
    return 'peft'
  if (path / 'config.json').exists():
    return 'hf'
  raise FileNotFoundError(
    f'{path} holds no model: neither {native.DESCRIPTION} (alignax) nor '
    'config.json (Hugging Face); it holds '
    f'{sorted(p.name for p in path.iterdir())}.'
  )


@contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
  """A new directory that takes the place of a model's when it is whole."""
  if directory.exists() and any(directory.iterdir()):
    found = sorted(p.name for p in directory.iterdir())
    try:
      known = kind_of(directory) in ('native', 'peft', 'hf')
    except FileNotFoundError:
      known = False
    if not known:
      raise FileExistsError(
        f'{directory} is not empty and holds no model ({found[:5]}): choose '
        'another directory.'
      )
  with native.replacing(directory) as new:
    yield new


def _read_gguf(path: Path, role: str | None, put: Place) -> Loaded:
  del role
  return gguf.read(path, place=put)


def _read_hf(path: Path, role: str | None, put: Place) -> Loaded:
  del role
  config = hf.read_config(path)
  return config, hf.read_params(path, config, place=put)


def _read_native(path: Path, role: str | None, put: Place) -> Loaded:
  del role
  return native.read(path, put)


READERS = {
  'gguf': _read_gguf,
  'hf': _read_hf,
  'native': _read_native,
  'run': native.read_run,
}
