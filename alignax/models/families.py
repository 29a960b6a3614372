"""Hugging Face's config.json to `Config` and back.

Both layouts are read: that of transformers 5 (`rope_parameters`,
`layer_types`) and the older one (`rope_theta`, `rope_scaling`,
`sliding_window_pattern`, `max_window_layers`). What is written holds both.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from alignax.models.config import GLOBAL, Config, RopeScaling

Json = Mapping[str, Any]

COMMON = dict(
  rms_norm_eps=1e-6, max_position_embeddings=2048, tie_word_embeddings=False
)
GEMMA = dict(
  num_attention_heads=8,
  num_key_value_heads=4,
  head_dim=256,
  hidden_activation='gelu_pytorch_tanh',
  max_position_embeddings=8192,
  query_pre_attn_scalar=256,
  sliding_window=4096,
  tie_word_embeddings=True,
)
# Values that a config.json may leave out, as transformers fills them in.
DEFAULTS = {
  'llama': COMMON,
  'mistral': COMMON | dict(num_key_value_heads=8, sliding_window=4096),
  'qwen2': COMMON | dict(max_window_layers=28, max_position_embeddings=32768),
  'qwen3': COMMON
  | dict(head_dim=128, max_window_layers=28, max_position_embeddings=32768),
  'gemma2': COMMON
  | GEMMA
  | dict(
    vocab_size=256000,
    hidden_size=2304,
    intermediate_size=9216,
    num_hidden_layers=26,
    attn_logit_softcapping=50.0,
    final_logit_softcapping=30.0,
    sliding_window_pattern=2,
  ),
  'gemma3_text': COMMON
  | GEMMA
  | dict(
    vocab_size=262208,
    hidden_size=2304,
    intermediate_size=9216,
    num_hidden_layers=26,
    max_position_embeddings=131072,
    rope_theta=1e6,
    rope_local_base_freq=1e4,
    sliding_window_pattern=6,
  ),
}
ACTIVATIONS = {
  'silu': 'silu',
  'swish': 'silu',
  'gelu_pytorch_tanh': 'gelu_tanh',
}
ARCHITECTURES = {
  'llama': 'Llama',
  'mistral': 'Mistral',
  'qwen2': 'Qwen2',
  'qwen3': 'Qwen3',
  'gemma2': 'Gemma2',
  'gemma3_text': 'Gemma3',
}
# Options of these families that are not implemented, and their harmless value.
REFUSED = {
  'attention_bias': False,
  'mlp_bias': False,
  'use_bidirectional_attention': False,
  'partial_rotary_factor': 1.0,
  'quantization_config': None,
}


def from_hf(hf: Json) -> Config:
  """The `Config` that a config.json describes.

  Raises:
    ValueError: naming a family, option or missing key that is not supported.
  """
  family = hf.get('model_type')
  if family == 'gemma3':  # Multimodal; we read the text model inside.
    family, hf = 'gemma3_text', hf['text_config']
  if family not in DEFAULTS:
    raise ValueError(
      f'model_type {family!r} is not supported; supported: {list(DEFAULTS)}.'
    )
  hf = DEFAULTS[family] | {k: v for k, v in hf.items() if v is not None} | {
    # Null is a value here, not "as usual".
    k: hf[k]
    for k in ('sliding_window', 'attn_logit_softcapping',
              'final_logit_softcapping')
    if k in hf
  }
  _refuse(hf, family)
  required = ['vocab_size', 'hidden_size', 'num_hidden_layers']
  required += ['num_attention_heads', 'intermediate_size']
  missing = [key for key in required if key not in hf]
  if missing:
    raise ValueError(f'config.json of a {family} model lacks {missing}.')
  return _build(hf, family)


def _build(hf: Json, family: str) -> Config:
  heads, width = hf['num_attention_heads'], hf['hidden_size']
  return Config(
    vocab_size=hf['vocab_size'],
    width=width,
    depth=hf['num_hidden_layers'],
    num_heads=heads,
    num_kv_heads=hf.get('num_key_value_heads', heads),
    head_dim=hf.get('head_dim', width // heads),
    mlp_width=hf['intermediate_size'],
    activation=_activation(hf),
    norm_eps=hf['rms_norm_eps'],
    tie_embeddings=hf['tie_word_embeddings'],
    qkv_bias=family == 'qwen2',
    qk_norm=family in ('qwen3', 'gemma3_text'),
    max_length=hf['max_position_embeddings'],
    family=family,
    **_ropes(hf, family),
    **_windows(hf, family),
    **(_gemma(hf) if family.startswith('gemma') else {}),
  )


def _gemma(hf: Json) -> dict:
  return dict(
    norm_offset=1.0,
    embed_scale=hf['hidden_size'] ** 0.5,
    post_norms=True,
    query_scale=hf['query_pre_attn_scalar'] ** -0.5,
    attn_softcap=hf.get('attn_logit_softcapping'),
    final_softcap=hf.get('final_logit_softcapping'),
  )


def _refuse(hf: Json, family: str) -> None:
  for key, harmless in REFUSED.items():
    if key in hf and hf[key] not in (harmless, None):
      raise ValueError(
        f'{key}={hf[key]!r} in config.json of a {family} model is not '
        f'implemented; only {harmless!r} is.'
      )
  experts = [k for k in hf if 'experts' in k and hf[k]]
  if experts:
    raise ValueError(
      f'Mixtures of experts are not implemented: config.json has {experts}.'
    )


def _activation(hf: Json) -> str:
  name = hf.get('hidden_activation') or hf.get('hidden_act', 'silu')
  if name not in ACTIVATIONS:
    raise ValueError(
      f'hidden_act {name!r} is not implemented; one of {list(ACTIVATIONS)} is.'
    )
  return ACTIVATIONS[name]


def _ropes(hf: Json, family: str) -> dict:
  """Bases and scaling of the rotary frequencies, from either layout."""
  new = hf.get('rope_parameters') or {}
  nested = 'full_attention' in new or 'sliding_attention' in new
  full = new.get('full_attention') or {} if nested else new
  old = hf.get('rope_scaling') or {}
  theta = full.get('rope_theta', hf.get('rope_theta', 10000.0))
  ropes = dict(rope_theta=float(theta), rope_scaling=_scaling(full or old, hf))
  if family != 'gemma3_text':
    return ropes
  local = new.get('sliding_attention') or {} if nested else {}
  if _scaling(local, hf) is not None:
    raise ValueError('Scaled rope in sliding-window layers is not implemented.')
  theta = local.get('rope_theta', hf['rope_local_base_freq'])
  return ropes | dict(local_rope_theta=float(theta))


def _scaling(rope: Json, hf: Json) -> RopeScaling | None:
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if rope.get('partial_rotary_factor', 1.0) != 1.0:
    raise ValueError('partial_rotary_factor in rope_parameters: only 1.0 is '
                     f'implemented, found {rope["partial_rotary_factor"]}.')
  if kind == 'default':
    return None
  if kind == 'linear':
    return RopeScaling('linear', float(rope['factor']))
  if kind != 'llama3':
    raise ValueError(
      f'rope_type {kind!r} is not implemented; default, linear and llama3 are.'
    )
  length = rope.get(
    'original_max_position_embeddings', hf['max_position_embeddings']
  )
  return RopeScaling(
    'llama3',
    float(rope['factor']),
    float(rope['low_freq_factor']),
    float(rope['high_freq_factor']),
    length,
  )


def _windows(hf: Json, family: str) -> dict:
  """Which layers see a sliding window, and how long it is."""
  window, depth = hf.get('sliding_window'), hf['num_hidden_layers']
  if family.startswith('qwen') and not hf.get('use_sliding_window', False):
    window = None
  if family == 'llama' or window is None:
    return {}
  if 'layer_types' in hf:
    unknown = set(hf['layer_types']) - {'full_attention', 'sliding_attention'}
    if unknown:
      raise ValueError(f'layer_types {sorted(unknown)} are not implemented.')
    local = tuple(kind == 'sliding_attention' for kind in hf['layer_types'])
  elif 'sliding_window_pattern' in hf:
    every = hf['sliding_window_pattern']
    local = tuple((i + 1) % every != 0 for i in range(depth))
  else:
    first = hf.get('max_window_layers', 0)
    local = tuple(i >= first for i in range(depth))
  return dict(window=window, local_layers=local) if any(local) else {}


def to_hf(config: Config) -> dict[str, Any]:
  """The config.json of a `Config`; reading it back gives the same `Config`.

  Raises:
    ValueError: naming the fields that the family cannot express.
  """
  if config.family not in DEFAULTS:
    raise ValueError(
      f'Config.family {config.family!r} has no Hugging Face model; one of '
      f'{list(DEFAULTS)} does.'
    )
  activations = {'silu': 'silu', 'gelu_tanh': 'gelu_pytorch_tanh'}
  gemma = config.family.startswith('gemma')
  activation = 'hidden_activation' if gemma else 'hidden_act'
  hf = dict(
    model_type=config.family,
    architectures=[ARCHITECTURES[config.family] + 'ForCausalLM'],
    vocab_size=config.vocab_size,
    hidden_size=config.width,
    intermediate_size=config.mlp_width,
    num_hidden_layers=config.depth,
    num_attention_heads=config.num_heads,
    num_key_value_heads=config.num_kv_heads,
    head_dim=config.head_dim,
    rms_norm_eps=config.norm_eps,
    tie_word_embeddings=config.tie_embeddings,
    max_position_embeddings=config.max_length,
    attention_bias=False,
    **{activation: activations[config.activation]},
    **_rope_fields(config),
    **_window_fields(config),
    **(_gemma_fields(config) if gemma else {}),
  )
  require_same(
    dataclasses.replace(config, dtype='float32', remat='attention'),
    from_hf(hf),
    f'A config.json of model_type {config.family!r} cannot express this model',
  )
  return hf


def _gemma_fields(config: Config) -> dict:
  scalar = (config.query_scale or config.head_dim**-0.5) ** -2
  return dict(
    query_pre_attn_scalar=round(scalar),
    attn_logit_softcapping=config.attn_softcap,
    final_logit_softcapping=config.final_softcap,
  )


def _rope_fields(config: Config) -> dict:
  scaling, rope = config.rope_scaling, {'rope_type': 'default'}
  if scaling is not None:
    rope = {'rope_type': scaling.kind, 'factor': scaling.factor}
  if scaling is not None and scaling.kind == 'llama3':
    rope |= dict(
      low_freq_factor=scaling.low_freq_factor,
      high_freq_factor=scaling.high_freq_factor,
      original_max_position_embeddings=scaling.original_length,
    )
  fields = dict(
    rope_theta=config.rope_theta,
    rope_scaling=None if scaling is None else rope,
  )
  rope = {**rope, 'rope_theta': config.rope_theta}
  local = config.local_rope_theta
  if local is None:
    return fields | {'rope_parameters': rope}
  nested = {
    'full_attention': rope,
    'sliding_attention': {'rope_type': 'default', 'rope_theta': local},
  }
  return fields | dict(rope_parameters=nested, rope_local_base_freq=local)


def _window_fields(config: Config) -> dict:
  if not config.local_layers or config.window == GLOBAL:
    return {} if config.family == 'llama' else {'sliding_window': None}
  kinds = {True: 'sliding_attention', False: 'full_attention'}
  fields = dict(sliding_window=config.window)
  if config.family == 'mistral':  # Every layer: the family knows no other.
    return fields
  fields |= dict(layer_types=[kinds[is_local] for is_local in
                              config.local_layers])
  if config.family.startswith('qwen'):
    fields |= dict(
      use_sliding_window=True, max_window_layers=config.local_layers.index(True)
    )
  if config.family == 'gemma3_text':
    fields |= dict(sliding_window_pattern=_pattern(config.local_layers))
  return fields


def _pattern(local_layers: tuple[bool, ...]) -> int:
  """Every how many layers one is global, for readers of the older layout."""
  if all(local_layers):
    return len(local_layers) + 1
  return local_layers.index(False) + 1


def require_same(expected: Config, found: Config, message: str) -> None:
  """Raises naming the fields in which two configs differ."""
  fields = [f.name for f in dataclasses.fields(Config)]
  differ = [
    f'{name}: expected {getattr(expected, name)!r}, '
    f'found {getattr(found, name)!r}'
    for name in fields
    if getattr(expected, name) != getattr(found, name)
  ]
  if differ:
    raise ValueError(f'{message}: {"; ".join(differ)}.')
