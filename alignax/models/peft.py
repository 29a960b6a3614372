"""Adapters in the layout of PEFT: what its users share and serve.

adapter_config.json        rank, alpha, which modules, and where the base is
adapter_model.safetensors  two tensors a module and layer, [rank, inputs] and
                           [outputs, rank]

https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignax import lora, quantize
from alignax.models import convert, hf
from alignax.models.config import Config
from alignax.types import Params

DESCRIPTION, WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'
PREFIX, SCORE = 'base_model.model.', 'score.weight'
NAMES = {'lora_a': '.lora_A.weight', 'lora_b': '.lora_B.weight'}
EMBEDDING_NAMES = {
  'lora_a': '.lora_embedding_A',
  'lora_b': '.lora_embedding_B',
}
MAGNITUDE = '.lora_magnitude_vector'
# Options that change what is computed and are not implemented here, with the
# values that change nothing; one that is empty or false never does.
REFUSED = {
  'bias': 'none',
  'lora_bias': False,
  'fan_in_fan_out': False,
  'rank_pattern': None,
  'alpha_pattern': None,
  'trainable_token_indices': None,
  'target_parameters': None,
  'layer_replication': None,
  'alora_invocation_tokens': None,
  'use_qalora': False,
  'use_bdlora': None,
  'arrow_config': None,
  'kasa_config': None,
  'velora_config': None,
  'monteclora_config': None,
}
# How A and B were started, where that left the base as it was.
INITS = (True, False, None, 'gaussian', 'eva', 'orthogonal')


class Place(NamedTuple):
  """Where PEFT keeps the factors of one parameter.

  Attributes:
    path: of the parameter in our tree.
    module: its module's Hugging Face name, with {} for the number of a layer.
    inputs: shape that A contracts, of one layer.
    outputs: shape that B results in.
    names: of the factors; in an embedding A is a table, [rank, V].
  """

  path: str
  module: str
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  names: Mapping[str, str]


def places(config: Config) -> list[Place]:
  """Every parameter that an adapter may stand beside."""
  shapes = convert.flatten(convert.abstract_params(config))
  found = []
  for entry in convert.table(config):
    module, shape = entry.name.removesuffix('.weight'), shapes[entry.path].shape
    if entry.path.endswith('kernel'):
      axes = 1 + quantize.input_axes(entry.path.removesuffix('/kernel'))
      sides, names = (shape[1:axes], shape[axes:]), NAMES
    elif entry.path == 'lm_head/embedding':
      sides, names = (shape[1:], shape[:1]), NAMES
    elif entry.path == 'embed/embedding' and not config.tie_embeddings:
      sides, names = (shape[:1], shape[1:]), EMBEDDING_NAMES
    else:
      continue
    found.append(Place(entry.path, module, *sides, names))
  return found


def read_settings(directory: Path) -> tuple[lora.Lora, str]:
  """Rank, alpha and so on, and where the base is.

  The targets rule is not in it: what is adapted, `read` finds in the tensors.
  """
  path = Path(directory) / DESCRIPTION
  found = hf.read_json(path)
  if found.get('peft_type') != 'LORA':
    raise ValueError(
      f'{path} is of peft_type {found.get("peft_type")!r}; only LORA is read.'
    )
  for key, harmless in REFUSED.items():
    if found.get(key) and found[key] != harmless:
      raise ValueError(
        f'{path}: {key}={found[key]!r} is not implemented; only '
        f'{harmless!r} is.'
      )
  if found.get('init_lora_weights', True) not in INITS:
    raise ValueError(
      f'{path}: init_lora_weights={found["init_lora_weights"]!r} changed the '
      'base too. Save it with path_initial_model_for_weight_conversion, which '
      'makes an adapter of the original base.'
    )
  saved = set(found.get('modules_to_save') or ()) - {'score', 'classifier'}
  if saved:
    raise ValueError(
      f'{path}: modules_to_save names {sorted(saved)}; only a score head is '
      'read.'
    )
  settings = lora.Lora(
    rank=found['r'],
    alpha=found['lora_alpha'],
    dora=bool(found.get('use_dora')),
    rslora=bool(found.get('use_rslora')),
  )
  return settings, found.get('base_model_name_or_path') or ''


def read(directory: Path, config: Config) -> tuple[str, Params]:
  """The targets rule and the adapters of a PEFT directory, float32.

  Layers that it leaves out have factors of zero, which stay zero.

  Args:
    directory: with both files.
    config: of the base.

  Raises:
    ValueError: naming tensors that are missing, too many or mis-shaped.
  """
  directory = Path(directory)
  settings, _ = read_settings(directory)
  path = directory / WEIGHTS
  if not path.exists():
    raise FileNotFoundError(
      f'{path} does not exist; weights in .bin files must be converted to '
      'safetensors first.'
    )
  tensors = dict(hf.open_tensors(path))
  head = tensors.pop(PREFIX + SCORE, None)
  flat, targets = {}, []
  for place in places(config):
    leaves = _read_place(place, config, settings, tensors, path)
    if leaves:
      module = place.path.rpartition('/')[0]
      flat |= {f'{module}/{name}': x for name, x in leaves.items()}
      targets.append(place.path)
  if tensors or not targets:
    raise ValueError(
      f'{path} does not belong to a {config.family} model of {config.depth} '
      f'layers: nothing in it takes {sorted(tensors)[:5]}.'
    )
  if head is not None:
    flat['value_head/kernel'] = _float32(head).reshape(-1)
    bias = hf.read_json(directory / DESCRIPTION).get('value_head_bias', 0.0)
    flat['value_head/bias'] = np.float32(bias)
  return f'^({"|".join(targets)})$', convert.nest(flat)


def _read_place(place, config, settings, tensors, path) -> dict:
  """Factors of one parameter, of all layers; takes them out of `tensors`."""
  stacked = '{}' in place.module
  layers = range(config.depth) if stacked else [None]
  wanted = dict(place.names)
  if settings.dora:
    wanted['magnitude'] = MAGNITUDE
  shapes = _hf_shapes(place, settings.rank)
  found: dict[str, list] = {name: [] for name in wanted}
  names = lambda i: {
    leaf: PREFIX + place.module.format(i) + end for leaf, end in wanted.items()
  }
  present = [i for i in layers if names(i)['lora_a'] in tensors]
  if not present:
    return {}
  if settings.dora and len(present) < len(layers):
    raise ValueError(
      f'{path} has {place.module} of layers {present} only; with DoRA all '
      'layers must be adapted.'
    )
  for i in layers:
    for leaf, name in names(i).items():
      if i not in present:
        found[leaf].append(np.zeros(shapes[leaf], np.float32))
        continue
      if name not in tensors:
        raise ValueError(f'{path} lacks {name}.')
      tensor = tensors.pop(name)
      if tuple(tensor.shape) != shapes[leaf]:
        raise ValueError(
          f'{path}: {name} has shape {tuple(tensor.shape)}, expected '
          f'{shapes[leaf]}.'
        )
      found[leaf].append(_float32(tensor))
  ours = {
    'lora_a': lambda x: x.T.reshape(*place.inputs, settings.rank),
    'lora_b': lambda x: x.T.reshape(settings.rank, *place.outputs),
    'magnitude': lambda x: x.reshape(place.outputs),
  }
  stacks = {k: np.stack([ours[k](x) for x in xs]) for k, xs in found.items()}
  return stacks if stacked else {k: x[0] for k, x in stacks.items()}


def _hf_shapes(place: Place, rank: int) -> dict[str, tuple[int, ...]]:
  inputs, outputs = math.prod(place.inputs), math.prod(place.outputs)
  return {
    'lora_a': (rank, inputs),
    'lora_b': (outputs, rank),
    'magnitude': (outputs,),
  }


def _float32(tensor: convert.Tensor) -> np.ndarray:
  return np.asarray(tensor.read(), np.float32)


def write(
  directory: Path,
  config: Config,
  settings: lora.Lora,
  adapters: Params,
  *,
  base: str,
) -> None:
  """Writes what PEFT loads onto the Hugging Face model of the base.

  Args:
    directory: an existing one.
    config: of the base.
    settings: of the adapters.
    adapters: with a value head, that of a sequence classifier of one label.
    base: path or hub name of the base, for `base_model_name_or_path`.
  """
  from safetensors.numpy import save_file

  tensors, modules = {}, []
  flat = convert.flatten(adapters)
  for place in places(config):
    module = place.path.rpartition('/')[0]
    if f'{module}/lora_a' in flat:
      tensors |= _tensors_of(place, module, flat, settings)
      modules.append(place.module.rpartition('.')[2])
  found = dict(
    peft_type='LORA',
    task_type='CAUSAL_LM',
    base_model_name_or_path=base,
    r=settings.rank,
    lora_alpha=_plain(settings.alpha),
    target_modules=modules,
    use_dora=settings.dora,
    use_rslora=settings.rslora,
    lora_dropout=0.0,
    bias='none',
    inference_mode=True,
  )
  if 'value_head/kernel' in flat:
    tensors[PREFIX + SCORE] = np.asarray(flat['value_head/kernel'])[None]
    found |= dict(task_type='SEQ_CLS', modules_to_save=['score'])
    bias = float(flat['value_head/bias'])
    if bias:  # Its classifiers have none; we read it from here.
      found |= dict(value_head_bias=bias)
  save_file(tensors, directory / WEIGHTS, metadata={'format': 'pt'})
  text = json.dumps(found, indent=2)
  (directory / DESCRIPTION).write_text(text + '\n')


def _tensors_of(place, module, flat, settings) -> dict[str, np.ndarray]:
  wanted = dict(place.names)
  if settings.dora:
    wanted['magnitude'] = MAGNITUDE
  shapes = _hf_shapes(place, settings.rank)
  tensors = {}
  for leaf, end in wanted.items():
    x = np.asarray(flat[f'{module}/{leaf}'], np.float32)
    for i, layer in enumerate(x if '{}' in place.module else x[None]):
      name = PREFIX + place.module.format(i) + end
      layer = layer.reshape(shapes[leaf][::-1]).T
      tensors[name] = np.ascontiguousarray(layer)
  return tensors


def _plain(alpha: float) -> float | int:
  return int(alpha) if alpha == int(alpha) else alpha
