"""`Config` to Hugging Face's config.json.

What is written is understood by transformers 5 and by older versions: it says
everything in both layouts, and is read back to be sure.
"""

import dataclasses
from typing import Any

from alignax.models.config import GLOBAL, Config
from alignax.models.families import DEFAULTS, from_hf

ARCHITECTURES = {
  'llama': 'Llama',
  'mistral': 'Mistral',
  'qwen2': 'Qwen2',
  'qwen3': 'Qwen3',
  'gemma2': 'Gemma2',
  'gemma3_text': 'Gemma3',
}


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
  fields |= dict(
    layer_types=[kinds[is_local] for is_local in config.local_layers]
  )
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
