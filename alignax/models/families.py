"""Hugging Face's config.json to `Config`.

Both layouts are read: that of transformers 5 (`rope_parameters`,
`layer_types`) and the older one (`rope_theta`, `rope_scaling`,
`sliding_window_pattern`, `max_window_layers`).
"""

from collections.abc import Mapping
from typing import Any

from alignax.models.config import Config, RopeScaling

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
  hf = (
    DEFAULTS[family]
    | {k: v for k, v in hf.items() if v is not None}
    | {
      # Null is a value here, not "as usual".
      k: hf[k]
      for k in (
        'sliding_window',
        'attn_logit_softcapping',
        'final_logit_softcapping',
      )
      if k in hf
    }
  )
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
    raise ValueError(
      'partial_rotary_factor in rope_parameters: only 1.0 is '
      f'implemented, found {rope["partial_rotary_factor"]}.'
    )
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
