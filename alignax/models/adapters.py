"""Stored adapters: runs of LoRA, directories of adapters, and those of PEFT.

They hold no base, but say where it is. In our own layout `model.json` has

  lora   the settings, and `base_from`: a path, or a name on the hub
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignax import checkpoint, lora, quantize
from alignax.models import convert, hf, native, peft
from alignax.models.config import Config
from alignax.models.model import Model
from alignax.types import Params


class Origin(NamedTuple):
  """What adapters are, and what they stand on.

  Attributes:
    settings: rank, alpha and so on.
    base: path or hub name of the base.
  """

  settings: lora.Lora
  base: str


def describe(path: Path) -> Origin | None:
  """What adapters a directory holds; None if it holds a whole model."""
  path = checkpoint.run_of(path)
  if (path / peft.DESCRIPTION).exists():
    return Origin(*peft.read_settings(path))
  if not (path / native.DESCRIPTION).exists():
    return None
  found = hf.read_json(path / native.DESCRIPTION).get('lora')
  if found is None:
    return None
  found = dict(found)
  base = found.pop('base_from')
  return Origin(lora.Lora(**found), base)


def read(
  path: Path, config: Config, role: str | None = None
) -> tuple[lora.Lora, Params]:
  """Settings and adapters as they were trained, with a value head if any.

  Args:
    path: a directory that `describe` knows.
    config: of the base.
    role: of a run; None for the policy, or whatever is the only one.
  """
  path = Path(path)
  origin = describe(path)
  assert origin is not None, path
  settings = origin.settings
  if (path / peft.DESCRIPTION).exists():
    targets, adapters = peft.read(path, config)
    return dataclasses.replace(settings, targets=targets), adapters
  if (path / 'params').exists():
    adapters = checkpoint.load_tree(path / 'params')
  else:
    role = native.default_role(path, role)
    adapters = checkpoint.load_role(checkpoint.checkpoints_of(path), role)
  check(config, settings, adapters, str(path))
  return settings, adapters


def check(config: Config, settings: lora.Lora, adapters: Params, where: str):
  """Raises unless these are adapters of such a base."""
  expected = convert.flatten(abstract(config, settings))
  found = {
    path: x
    for path, x in convert.flatten(adapters).items()
    if not path.startswith('value_head')
  }
  if 'value_head' in adapters:  # Scores need no head that adapters change.
    optional = {k for k in expected if k.startswith('lm_head')} - found.keys()
    expected = {k: v for k, v in expected.items() if k not in optional}
  wrong = [
    path
    for path in expected.keys() | found.keys()
    if path not in expected
    or path not in found
    or expected[path].shape != found[path].shape
  ]
  if wrong:
    raise ValueError(
      f'{where} holds adapters of another model or with other settings; they '
      f'differ in {", ".join(sorted(wrong)[:5])}.'
    )


def abstract(config: Config, settings: lora.Lora) -> Params:
  """Shapes of the adapters of a language model."""
  shapes = convert.abstract_params(config)
  return jax.eval_shape(
    lambda base, key: lora.init_adapters(base, shapes, settings, key),
    shapes,
    jax.eval_shape(jax.random.key, 0),
  )


def merged(
  config: Config,
  base: Params,
  settings: lora.Lora,
  adapters: Params,
  *,
  keep_lm_head: bool,
  dtype: str | None = None,
) -> Params:
  """One role's plain parameters, which compute what the run's model did.

  So the base is quantised and back first, where the run's was.

  Args:
    config: of the base.
    base: as it is stored; whole.
    settings: of the adapters.
    adapters: as they were trained.
    keep_lm_head: also where there is a value head.
    dtype: of the result; None is that of the base.
  """
  given = base['norm']['scale'].dtype if dtype is None else dtype
  if settings.base in quantize.KINDS:
    base = quantize.quantise_params(base, settings.base)
  settled = lora.settle(base, adapters, settings.scale)
  whole = lora.overlay(base, settled)
  if 'value_head' in whole and not keep_lm_head:
    whole = {k: v for k, v in whole.items() if k != 'lm_head'}
  whole = lora.merge(whole, convert.abstract_params(config), jnp.dtype(given))
  return jax.tree.map(lambda x: x.astype(given), whole)


def write(
  directory: Path,
  config: Config,
  settings: lora.Lora,
  adapters: Params,
  base: str,
) -> None:
  """Writes a directory that `read` reads, into an existing one."""
  checkpoint.save_tree(directory / 'params', adapters)
  origin = Origin(settings, base)
  write_description(directory, Model(config), origin, adapters)


def write_description(
  directory: Path,
  model: Model,
  origin: Origin | None = None,
  params: Params | None = None,
) -> None:
  """Writes the model.json of a run, or of a directory of adapters.

  Args:
    directory: where.
    model: of the base, with adapters.
    origin: of the adapters; None for a run of whole models. A path of the
      base is made absolute.
    params: of a directory; None for a run, whose checkpoints hold them.
  """
  about = None
  if origin is not None:
    base = origin.base
    base = str(Path(base).absolute()) if Path(base).exists() else base
    about = dataclasses.asdict(origin.settings) | dict(base_from=base)
  native.write_description(directory, model, params, lora=about)
