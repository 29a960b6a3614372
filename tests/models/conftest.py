"""Tiny random models of every family, in transformers and in ours."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from alignax import models

SMALL = dict(
  vocab_size=64,
  hidden_size=32,
  intermediate_size=48,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  head_dim=8,
  max_position_embeddings=64,
  # Large enough that softcaps, scales and windows show in the logits.
  initializer_range=0.3,
  bos_token_id=None,
  eos_token_id=None,
  pad_token_id=None,
)
LLAMA3 = dict(
  rope_type='llama3',
  rope_theta=500.0,
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=16,
)
HALF = ['full_attention', 'sliding_attention']
FAMILIES = {
  'llama': ('Llama', dict(rope_parameters=LLAMA3)),
  'llama_linear': (
    'Llama',
    dict(
      num_key_value_heads=4,
      rope_parameters=dict(rope_type='linear', factor=3.0, rope_theta=10000.0),
    ),
  ),
  'smollm2': (
    'Llama',
    dict(
      tie_word_embeddings=True,
      num_attention_heads=3,
      num_key_value_heads=1,
      hidden_size=24,
      rope_parameters=dict(rope_type='default', rope_theta=100000.0),
    ),
  ),
  'mistral': ('Mistral', dict(sliding_window=8)),
  'qwen2': ('Qwen2', dict(tie_word_embeddings=True)),
  'qwen2_window': (
    'Qwen2',
    dict(use_sliding_window=True, sliding_window=8, max_window_layers=1),
  ),
  'qwen3': ('Qwen3', dict(head_dim=16)),
  'gemma2': (
    'Gemma2',
    dict(
      sliding_window=8,
      query_pre_attn_scalar=24,
      attn_logit_softcapping=2.0,
      final_logit_softcapping=5.0,
    ),
  ),
  'gemma3': (
    'Gemma3Text',
    dict(
      num_hidden_layers=3,
      sliding_window=8,
      query_pre_attn_scalar=24,
      layer_types=['sliding_attention', *HALF],
      rope_parameters=dict(
        full_attention=dict(rope_type='linear', factor=8.0, rope_theta=1e6),
        sliding_attention=dict(rope_type='default', rope_theta=1e4),
      ),
    ),
  ),
}


@dataclasses.dataclass(frozen=True)
class Pair:
  """The same weights in both libraries."""

  directory: object  # Written by transformers.
  hf: object
  model: models.Model
  params: dict

  def hf_logits(self, inputs, mask, positions):
    import torch

    as_torch = lambda x: torch.tensor(np.asarray(x, np.int64))
    with torch.no_grad():
      return self.hf(
        as_torch(inputs),
        attention_mask=as_torch(mask),
        position_ids=as_torch(positions),
      ).logits.numpy()

  @functools.cached_property
  def logits(self):
    """Jitted, so that every test of a family shares one program."""
    return jax.jit(self.model.logits)


def make_hf(name: str):
  """A random transformers model; norms and biases differ from their start."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  cls, options = FAMILIES[name]
  config = getattr(transformers, cls + 'Config')(**SMALL | options)
  config._attn_implementation = 'eager'  # The others skip softcaps.
  torch.manual_seed(0)
  prefix = cls.removesuffix('Text')
  model = getattr(transformers, prefix + 'ForCausalLM')(config).eval()
  with torch.no_grad():
    for key, x in model.named_parameters():
      if 'norm' in key or 'bias' in key:
        x.add_(0.3 * torch.randn_like(x))
  return model


@pytest.fixture(scope='session')
def pair(tmp_path_factory):
  """`pair(name)`: a family's tiny model in both libraries, made once."""

  @functools.cache
  def make(name: str) -> Pair:
    hf = make_hf(name)
    directory = tmp_path_factory.mktemp(name)
    hf.save_pretrained(directory)
    return Pair(directory, hf, *models.load(directory))

  return make


@pytest.fixture(scope='session')
def tiny():
  """`tiny(**changes)`: a model and params that need no torch."""

  @functools.cache
  def make(**changes):
    config = models.Config(
      **dict(
        vocab_size=64,
        width=32,
        depth=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_width=48,
      )
      | changes
    )
    model = models.Model(config)
    return model, model.init(jax.random.key(0))

  return make
