"""config.json of every family and layout, and what is refused."""

import dataclasses
import json

import pytest

from alignax.models import Config, RopeScaling, families, families_out

BASE = dict(
  vocab_size=64,
  hidden_size=32,
  intermediate_size=48,
  num_hidden_layers=4,
  num_attention_heads=4,
  num_key_value_heads=2,
)


def read(model_type: str, **options) -> Config:
  return families.from_hf(dict(model_type=model_type, **(BASE | options)))


CONFIGS = {
  'llama': read('llama', rope_theta=5e5),
  'llama3': read(
    'llama',
    tie_word_embeddings=True,
    rope_scaling=dict(
      rope_type='llama3',
      factor=32.0,
      low_freq_factor=1.0,
      high_freq_factor=4.0,
      original_max_position_embeddings=8192,
    ),
  ),
  'linear': read('llama', rope_scaling=dict(type='linear', factor=2.0)),
  'mistral': read('mistral', sliding_window=16),
  'mistral_full': read('mistral', sliding_window=None),
  'qwen2': read('qwen2'),
  'qwen2_window': read(
    'qwen2', use_sliding_window=True, sliding_window=8, max_window_layers=2
  ),
  'qwen3': read('qwen3', head_dim=128),
  'gemma2': read('gemma2', query_pre_attn_scalar=144),
  'gemma3': read('gemma3_text', sliding_window_pattern=2),
  'gemma3_deep': read('gemma3_text', num_hidden_layers=13),
}


class TestRoundTrip:
  @pytest.mark.parametrize('name', CONFIGS)
  def test_ours(self, name):
    config = CONFIGS[name]
    hf = json.loads(json.dumps(families_out.to_hf(config)))
    assert families.from_hf(hf) == config

  @pytest.mark.parametrize('name', CONFIGS)
  def test_through_transformers(self, name):
    transformers = pytest.importorskip('transformers')
    hf = families_out.to_hf(CONFIGS[name])
    theirs = transformers.AutoConfig.for_model(**hf)
    assert families.from_hf(theirs.to_dict()) == CONFIGS[name]

  def test_without_the_new_keys(self):
    """What older versions read says the same."""
    for config in CONFIGS.values():
      hf = families_out.to_hf(config)
      del hf['rope_parameters']
      hf.pop('layer_types', None)
      assert families.from_hf(hf) == config

  def test_without_the_old_keys(self):
    for config in CONFIGS.values():
      hf = families_out.to_hf(config)
      for key in (
        'rope_theta',
        'rope_scaling',
        'rope_local_base_freq',
        'sliding_window_pattern',
        'max_window_layers',
      ):
        hf.pop(key, None)
      assert families.from_hf(hf) == config

  def test_compute_settings_are_not_architecture(self):
    config = dataclasses.replace(
      CONFIGS['llama'], dtype='bfloat16', remat='block'
    )
    assert families.from_hf(families_out.to_hf(config)) == CONFIGS['llama']

  def test_what_a_family_cannot_express(self):
    config = dataclasses.replace(
      CONFIGS['llama'],
      qk_norm=True,
      window=4,
      local_layers=(True, False, True, False),
    )
    with pytest.raises(ValueError, match='llama.*window: .*qk_norm: expected'):
      families_out.to_hf(config)

  def test_unknown_family(self):
    config = dataclasses.replace(CONFIGS['llama'], family='mine')
    with pytest.raises(ValueError, match="'mine' has no Hugging Face model"):
      families_out.to_hf(config)


class TestLayouts:
  def test_llama3_rope(self):
    assert CONFIGS['llama3'].rope_scaling == RopeScaling(
      'llama3', 32.0, 1.0, 4.0, 8192
    )

  def test_gemma3_pattern(self):
    config = CONFIGS['gemma3_deep']
    full = [i for i, local in enumerate(config.local_layers) if not local]
    assert full == [5, 11]
    assert (config.rope_theta, config.local_rope_theta) == (1e6, 1e4)

  def test_gemma2_alternates(self):
    assert CONFIGS['gemma2'].local_layers == (True, False) * 2
    assert CONFIGS['gemma2'].query_scale == 144**-0.5

  def test_qwen2_windows_in_upper_layers(self):
    assert CONFIGS['qwen2_window'].local_layers == (False, False, True, True)
    assert not CONFIGS['qwen2'].local_layers

  def test_text_part_of_a_multimodal_config(self):
    """As published: only what differs from the defaults is there."""
    text = dict(
      hidden_size=2560,
      intermediate_size=10240,
      model_type='gemma3_text',
      num_hidden_layers=34,
      rope_scaling={'factor': 8.0, 'rope_type': 'linear'},
      sliding_window=1024,
    )
    config = families.from_hf(
      dict(model_type='gemma3', text_config=text, vision_config={})
    )
    assert (config.vocab_size, config.head_dim) == (262208, 256)
    assert (config.num_heads, config.num_kv_heads) == (8, 4)
    assert config.rope_scaling == RopeScaling('linear', 8.0)
    assert config.tie_embeddings and config.family == 'gemma3_text'

  @pytest.mark.parametrize(
    'name', ['Llama', 'Mistral', 'Qwen2', 'Qwen3', 'Gemma2', 'Gemma3Text']
  )
  def test_defaults_are_those_of_transformers(self, name):
    transformers = pytest.importorskip('transformers')
    theirs = getattr(transformers, name + 'Config')
    sizes = dict(BASE, num_key_value_heads=4)
    full = theirs(**sizes).to_dict()
    assert families.from_hf(full) == families.from_hf(
      dict(sizes, model_type=theirs.model_type)
      # The one default that depends on the size of another.
      | dict(max_position_embeddings=full['max_position_embeddings'])
    )


class TestRefused:
  def test_unknown_family(self):
    with pytest.raises(ValueError, match="'mixtral' is not supported.*'llama'"):
      read('mixtral')

  @pytest.mark.parametrize(
    'option',
    [
      dict(attention_bias=True),
      dict(mlp_bias=True),
      dict(partial_rotary_factor=0.5),
      dict(quantization_config={'quant_method': 'gptq'}),
      dict(num_local_experts=8),
      dict(hidden_act='relu'),
      dict(rope_scaling=dict(rope_type='yarn', factor=4.0)),
      dict(rope_parameters=dict(rope_type='longrope', rope_theta=1e4)),
    ],
    ids=lambda option: next(iter(option)),
  )
  def test_option(self, option):
    with pytest.raises(ValueError, match=next(iter(option)).split('_')[0]):
      read('llama', **option)

  def test_harmless_value(self):
    assert read('llama', attention_bias=False, mlp_bias=None) == read('llama')

  def test_kinds_of_layers(self):
    with pytest.raises(ValueError, match='chunked_attention'):
      read('gemma2', layer_types=['chunked_attention'] * 4)

  def test_missing_key(self):
    with pytest.raises(ValueError, match=r"lacks \['hidden_size'\]"):
      families.from_hf(
        {k: v for k, v in BASE.items() if k != 'hidden_size'}
        | dict(model_type='llama')
      )
