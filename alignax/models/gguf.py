"""GGUF files: metadata to `Config`, quantised weights to float32.

Block-quantised tensors are dequantised once, on import. llama.cpp writes the
rows of q and k of the llama architecture in another order (a rotary pair is
2i, 2i + 1 there), and adds 1 to the norms of Gemma: both are undone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignax.models import convert, families
from alignax.models.config import Config
from alignax.models.convert import Tensor
from alignax.types import Params

TYPES = ('F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1')
FAMILIES = {
  'llama': 'llama',
  'qwen2': 'qwen2',
  'qwen3': 'qwen3',
  'gemma2': 'gemma2',
  'gemma3': 'gemma3_text',
}
TOP = {
  'token_embd': 'embed_tokens',
  'output_norm': 'norm',
  'output': 'lm_head',
}
LAYER = {
  'attn_norm': 'input_layernorm',
  'attn_q': 'self_attn.q_proj',
  'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj',
  'attn_output': 'self_attn.o_proj',
  'attn_q_norm': 'self_attn.q_norm',
  'attn_k_norm': 'self_attn.k_norm',
  'ffn_norm': 'post_attention_layernorm',
  'ffn_gate': 'mlp.gate_proj',
  'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj',
}
GEMMA_LAYER = LAYER | {
  'post_attention_norm': 'post_attention_layernorm',
  'ffn_norm': 'pre_feedforward_layernorm',
  'post_ffw_norm': 'post_feedforward_layernorm',
}
# The two largest Gemmas scale queries by width / heads, not by the head size;
# GGUF says so nowhere, their depth tells.
WIDE_GEMMA = {('gemma2', 46), ('gemma3', 62)}


def open_file(path: Path) -> Any:
  """A `gguf.GGUFReader`; errors name the file."""
  try:
    import gguf
  except ImportError as error:
    raise ImportError(
      'Reading GGUF files needs the package `gguf`: '
      "pip install 'alignax[train]'."
    ) from error
  if not Path(path).exists():
    raise FileNotFoundError(f'{path} does not exist.')
  try:
    return gguf.GGUFReader(path)
  except Exception as error:  # It raises whatever its arithmetic runs into.
    raise ValueError(
      f'{path} is not a readable GGUF file ({type(error).__name__}: {error}); '
      'it is corrupt or its download was cut short.'
    ) from error


def read(path: Path, **kw) -> tuple[Config, Params]:
  """Config and float32 params; keywords as in `convert.from_hf`."""
  reader = open_file(path)
  try:
    config = read_config(reader)
    return config, convert.from_hf(config, read_tensors(reader, config), **kw)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error


def metadata(reader) -> dict[str, Any]:
  """Every field of the file but the tokenizer's tables."""
  tables = ('tokens', 'scores', 'token_type', 'merges')
  return {
    name: field.contents()
    for name, field in reader.fields.items()
    if not name.endswith(tables)
  }


def read_config(reader) -> Config:
  """The `Config` in a file's metadata."""
  fields = metadata(reader)
  arch = fields.get('general.architecture')
  if arch not in FAMILIES:
    raise ValueError(
      f'general.architecture {arch!r} is not supported; supported: '
      f'{list(FAMILIES)}.'
    )
  values = {
    name.removeprefix(f'{arch}.'): value
    for name, value in fields.items()
    if name.startswith(f'{arch}.')
  }
  tensors = {tensor.name: tensor for tensor in reader.tensors}
  required = ['block_count', 'embedding_length', 'feed_forward_length']
  required += ['attention.head_count', 'attention.layer_norm_rms_epsilon']
  missing = [f'{arch}.{key}' for key in required if key not in values]
  missing += ['token_embd.weight'] * ('token_embd.weight' not in tensors)
  if missing:
    raise ValueError(f'the file lacks {missing}.')
  return families.from_hf(_hf_config(arch, values, tensors))


def _hf_config(arch: str, values: Mapping, tensors: Mapping) -> dict[str, Any]:
  heads, width = values['attention.head_count'], values['embedding_length']
  depth = values['block_count']
  head_dim = values.get('attention.key_length', width // heads)
  hf = dict(
    model_type=FAMILIES[arch],
    vocab_size=int(tensors['token_embd.weight'].shape[1]),
    hidden_size=width,
    intermediate_size=values['feed_forward_length'],
    num_hidden_layers=depth,
    num_attention_heads=heads,
    num_key_value_heads=values.get('attention.head_count_kv', heads),
    head_dim=head_dim,
    rms_norm_eps=_short(values['attention.layer_norm_rms_epsilon']),
    max_position_embeddings=values.get('context_length', 2048),
    tie_word_embeddings='output.weight' not in tensors,
    num_local_experts=values.get('expert_count', 0),
    sliding_window=values.get('attention.sliding_window'),
    use_sliding_window=False,
    rope_scaling=_rope_scaling(values, tensors, head_dim),
  )
  if 'rope.freq_base' in values:
    hf['rope_theta'] = values['rope.freq_base']
  if arch.startswith('gemma'):
    wide = (arch, depth) in WIDE_GEMMA
    hf |= dict(
      query_pre_attn_scalar=width // heads if wide else head_dim,
      attn_logit_softcapping=values.get('attn_logit_softcapping'),
      final_logit_softcapping=values.get('final_logit_softcapping'),
    )
  return hf


def _short(x: float) -> float:
  """The shortest decimal that is this float32: 1e-5, not 9.99999974e-06."""
  return float(str(np.float32(x)))


def _rope_scaling(values, tensors, head_dim: int) -> dict[str, Any] | None:
  kind = values.get('rope.scaling.type', 'none')
  if kind not in ('none', 'linear'):
    raise ValueError(
      f'rope.scaling.type {kind!r} is not implemented; none and linear are.'
    )
  if kind == 'linear':
    return dict(rope_type='linear', factor=values['rope.scaling.factor'])
  if 'rope_freqs.weight' not in tensors:
    return None
  return _llama3_scaling(
    np.array(tensors['rope_freqs.weight'].data),
    values.get('rope.freq_base', 10000.0),
    head_dim,
  )


def _llama3_scaling(divisors: np.ndarray, theta: float, head_dim: int):
  """Llama 3's numbers, checked against the divisors that the file holds."""
  from alignax.models import rope
  from alignax.models.config import RopeScaling

  scaling = RopeScaling('llama3', float(divisors.max()))
  plain = rope.frequencies(head_dim, theta)
  expected = plain / rope.frequencies(head_dim, theta, scaling)
  if not np.allclose(divisors, expected, rtol=1e-4):
    raise ValueError(
      'rope_freqs.weight is not the scaling of Llama 3 (low_freq_factor 1, '
      'high_freq_factor 4, original length 8192): not implemented.'
    )
  return dict(
    rope_type='llama3',
    factor=scaling.factor,
    low_freq_factor=scaling.low_freq_factor,
    high_freq_factor=scaling.high_freq_factor,
    original_max_position_embeddings=scaling.original_length,
  )


def read_tensors(reader, config: Config) -> dict[str, Tensor]:
  """Tensors by their Hugging Face names, unread."""
  found = {}
  for tensor in reader.tensors:
    if tensor.tensor_type.name not in TYPES:
      raise ValueError(
        f'{tensor.name} has type {tensor.tensor_type.name}; supported: '
        f'{list(TYPES)}.'
      )
    if tensor.name == 'rope_freqs.weight':  # Follows from the config.
      continue
    # GGUF counts axes from the fastest.
    shape = tuple(int(n) for n in reversed(tensor.shape))
    read = _reader(tensor, shape, config)
    found[_hf_name(tensor.name, config)] = Tensor(shape, read)
  return found


def _hf_name(name: str, config: Config) -> str:
  """'blk.3.attn_q.weight' -> 'model.layers.3.self_attn.q_proj.weight'."""
  layer = GEMMA_LAYER if config.post_norms else LAYER
  stem, _, suffix = name.rpartition('.')
  if stem in TOP:
    prefix = '' if stem == 'output' else 'model.'
    return f'{prefix}{TOP[stem]}.{suffix}'
  parts = stem.split('.', 2)
  if len(parts) == 3 and parts[0] == 'blk' and parts[2] in layer:
    return f'model.layers.{parts[1]}.{layer[parts[2]]}.{suffix}'
  return name  # Reported as unexpected.


def _reader(tensor, shape, config: Config):
  stem = tensor.name.rpartition('.')[0]
  heads = {
    'attn_q': config.num_heads,
    'attn_k': config.num_kv_heads,
  }.get(stem.rpartition('.')[2])

  def read() -> np.ndarray:
    x = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
    if config.family == 'llama' and heads:
      x = x.reshape(heads, -1, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
    if config.norm_offset and stem.endswith('norm'):
      x = x - np.float32(config.norm_offset)
    return x

  return read


def dequantize(data: np.ndarray, kind) -> np.ndarray:
  """float32 values of a GGUF tensor of any type in `TYPES`."""
  from gguf import quants

  return np.asarray(quants.dequantize(np.asarray(data), kind), np.float32)
