"""Hugging Face directories: config.json and safetensors, read without torch.

config.json                          the architecture
model.safetensors                    all weights, or
model.safetensors.index.json         which of several files holds what
tokenizer.json, ...                  copied as they are
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignax.models import convert, families, families_out
from alignax.models.config import Config
from alignax.models.convert import Tensor
from alignax.types import Params

WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
SHARD_BYTES = 5 * 10**9
# Buffers that old checkpoints hold and that follow from the config.
DERIVED = ('rotary_emb.inv_freq', 'self_attn.masked_bias', 'self_attn.bias')


def read_config(directory: Path) -> Config:
  """The `Config` of a Hugging Face directory."""
  path = Path(directory) / 'config.json'
  try:
    return families.from_hf(read_json(path))
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error


def read_json(path: Path) -> dict[str, Any]:
  """A JSON object from a file; errors name the file."""
  if not path.exists():
    raise FileNotFoundError(f'{path} does not exist.')
  try:
    value = json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise ValueError(f'{path} is not valid JSON: {error}.') from error
  if not isinstance(value, dict):
    raise ValueError(f'{path} holds a {type(value).__name__}, not an object.')
  return value


def read_params(directory: Path, config: Config, **kw) -> Params:
  """The params tree of a Hugging Face directory; see `convert.from_hf`."""
  directory = Path(directory)
  tensors = read_tensors(directory)
  if config.tie_embeddings:
    tensors = _drop_tied_head(tensors)
  try:
    params = convert.from_hf(config, tensors, **kw)
  except ValueError as error:
    raise ValueError(f'{directory}: {error}') from error
  if 'value_head' in params:
    bias = read_json(directory / 'config.json').get('value_head_bias', 0.0)
    head = params['value_head']
    head['bias'] = head['bias'] + np.asarray(bias, head['bias'].dtype)
  return params


def read_tensors(directory: Path) -> dict[str, Tensor]:
  """Every tensor of a text model by its name, unread."""
  tensors = {}
  for path in _files(directory):
    tensors |= open_tensors(path)
  names = [name for name in tensors if name.endswith('embed_tokens.weight')]
  if len(names) != 1:
    raise ValueError(
      f'{directory}: expected one tensor named ...embed_tokens.weight, found '
      f'{names}.'
    )
  prefix = names[0].removesuffix('embed_tokens.weight')
  return dict(_rename(tensors, prefix))


def _files(directory: Path) -> list[Path]:
  directory = Path(directory)
  if (directory / WEIGHTS).exists():
    return [directory / WEIGHTS]
  if (directory / INDEX).exists():
    names = sorted(set(read_json(directory / INDEX)['weight_map'].values()))
    missing = [name for name in names if not (directory / name).exists()]
    if missing:
      raise FileNotFoundError(
        f'{directory / INDEX} names {missing}, which are not there: the '
        'download is incomplete.'
      )
    return [directory / name for name in names]
  found = sorted(path.name for path in directory.glob('*'))
  raise FileNotFoundError(
    f'{directory} holds neither {WEIGHTS} nor {INDEX}; it holds {found}. '
    'Weights in .bin files must be converted to safetensors first.'
  )


def open_tensors(path: Path) -> dict[str, Tensor]:
  import safetensors

  try:
    file = safetensors.safe_open(path, framework='numpy')
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'{path} is not a readable safetensors file ({error}); it is corrupt or '
      'its download was cut short.'
    ) from error

  def tensor(name: str) -> Tensor:
    part = file.get_slice(name)
    if part.get_dtype() not in ('F32', 'F16', 'BF16'):
      raise ValueError(
        f'{path}: {name} has type {part.get_dtype()}; F32, F16 and BF16 are '
        'supported.'
      )
    return Tensor(tuple(part.get_shape()), lambda: file.get_tensor(name))

  return {name: tensor(name) for name in file.keys()}  # noqa: SIM118


def _rename(
  tensors: Mapping[str, Tensor], prefix: str
) -> Iterator[tuple[str, Tensor]]:
  """Names as in a text-only causal model, whatever wraps the decoder."""
  multimodal = 'language_model' in prefix
  for name, tensor in tensors.items():
    if name.endswith(DERIVED):
      continue
    if name.startswith(prefix):
      yield 'model.' + name.removeprefix(prefix), tensor
    elif name.endswith('lm_head.weight'):
      yield 'lm_head.weight', tensor
    elif not multimodal:  # There the rest is the image encoder.
      yield name, tensor


def _drop_tied_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
  """Without a head that repeats the embedding."""
  if 'lm_head.weight' not in tensors:
    return dict(tensors)
  head = tensors['lm_head.weight'].read()
  if not np.array_equal(head, tensors['model.embed_tokens.weight'].read()):
    raise ValueError(
      'config.json has tie_word_embeddings: true, but lm_head.weight differs '
      'from model.embed_tokens.weight; set it to false to use both.'
    )
  return {k: v for k, v in tensors.items() if k != 'lm_head.weight'}


def write(
  directory: Path,
  config: Config,
  params: Params,
  *,
  token_ids: Mapping[str, int | list[int]],
  shard_bytes: int = SHARD_BYTES,
) -> None:
  """Writes what transformers loads: config.json and safetensors.

  Args:
    directory: an existing one.
    config: of the model.
    params: with a value head, a sequence classifier of one label is written;
      transformers has no bias for it, so it goes into config.json for us.
    token_ids: bos_token_id, eos_token_id and pad_token_id, where known.
    shard_bytes: largest size of one file.
  """
  tensors = convert.to_hf(config, params)
  hf = families_out.to_hf(config) | dict(token_ids)
  hf['dtype'] = tensors['model.embed_tokens.weight'].dtype.name
  if 'value_head' in params:
    name = families_out.ARCHITECTURES[config.family]
    hf |= dict(
      architectures=[name + 'ForSequenceClassification'],
      num_labels=1,
      value_head_bias=float(params['value_head']['bias']),
    )
  write_json(directory / 'config.json', hf)
  if token_ids:
    write_json(directory / 'generation_config.json', dict(token_ids))
  _write_tensors(directory, tensors, shard_bytes)


def _write_tensors(
  directory: Path, tensors: dict[str, np.ndarray], shard_bytes: int
) -> None:
  from safetensors.numpy import save_file

  shards: list[dict[str, np.ndarray]] = [{}]
  size = 0
  for name in sorted(tensors):
    if size and size + tensors[name].nbytes > shard_bytes:
      shards.append({})
      size = 0
    shards[-1][name] = tensors[name]
    size += tensors[name].nbytes
  count = len(shards)
  files = [f'model-{i + 1:05}-of-{count:05}.safetensors' for i in range(count)]
  files = [WEIGHTS] if count == 1 else files
  for file, shard in zip(files, shards):
    save_file(shard, directory / file, metadata={'format': 'pt'})
  if count > 1:
    total = sum(x.nbytes for x in tensors.values())
    where = {name: file for file, shard in zip(files, shards) for name in shard}
    index = {'metadata': {'total_size': total}, 'weight_map': where}
    write_json(directory / INDEX, index)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(value, indent=2) + '\n')
