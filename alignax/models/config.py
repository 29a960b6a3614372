"""What tells one decoder from another: a table of numbers, no code."""

import dataclasses
from typing import Literal

GLOBAL = 1 << 30  # A window that no sequence reaches: full attention.


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """How rotary frequencies are stretched for contexts longer than trained.

  `linear` divides all of them by `factor`; `llama3` divides the slow ones,
  keeps the fast ones and interpolates between (Llama 3.1, section 3.2 of
  https://arxiv.org/abs/2407.21783 and its reference code).
  """

  kind: Literal['linear', 'llama3']
  factor: float
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_length: int = 8192


@dataclasses.dataclass(frozen=True)
class Config:
  """A decoder of the Llama, Qwen or Gemma family.

  Attributes:
    vocab_size: V, rows of the embedding.
    width: D, of the residual stream.
    depth: L, number of layers.
    num_heads: H, query heads.
    num_kv_heads: K, key and value heads; divides H.
    head_dim: size of one head.
    mlp_width: inner size of the gated MLP.
    activation: of the gate, 'silu' or 'gelu_tanh'.
    norm_eps: added to the mean square in RMSNorm.
    norm_offset: RMSNorm multiplies by (offset + scale); 1 in Gemma.
    tie_embeddings: the head is the embedding, transposed.
    embed_scale: multiplies embeddings; sqrt(D) in Gemma.
    rope_theta: base of the rotary frequencies.
    rope_scaling: stretches the frequencies of global layers, or None.
    local_rope_theta: base in sliding-window layers (Gemma 3), or None for the
      same in all layers.
    window: how many tokens a sliding-window layer sees, itself included.
    local_layers: for each layer whether it is a sliding-window layer; empty
      for none.
    qkv_bias: biases in the query, key and value projections (Qwen 2.5).
    qk_norm: RMSNorm of every query and key head (Qwen 3, Gemma 3).
    post_norms: also normalise the output of attention and MLP (Gemma).
    query_scale: factor of the attention logits; head_dim ** -0.5 if None.
    attn_softcap: attention logits become c tanh(logits / c) (Gemma 2).
    final_softcap: the same for the output logits.
    max_length: longest sequence that it was trained for; informs, not limits.
    family: name in Hugging Face's `model_type`, for export.
    dtype: of the computation; parameters keep their own.
    remat: what the backward pass recomputes: 'none', 'attention' (the
      attention logits only), 'dots' (all but matrix products), 'block'
      (everything in a layer).
  """

  vocab_size: int
  width: int
  depth: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_width: int
  activation: Literal['silu', 'gelu_tanh'] = 'silu'
  norm_eps: float = 1e-5
  norm_offset: float = 0.0
  tie_embeddings: bool = True
  embed_scale: float = 1.0
  rope_theta: float = 10000.0
  rope_scaling: RopeScaling | None = None
  local_rope_theta: float | None = None
  window: int = GLOBAL
  local_layers: tuple[bool, ...] = ()
  qkv_bias: bool = False
  qk_norm: bool = False
  post_norms: bool = False
  query_scale: float | None = None
  attn_softcap: float | None = None
  final_softcap: float | None = None
  max_length: int = 2048
  family: str = 'llama'
  dtype: str = 'float32'
  remat: Literal['none', 'attention', 'dots', 'block'] = 'attention'

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f'num_kv_heads {self.num_kv_heads} does not divide num_heads '
        f'{self.num_heads}.'
      )
    if self.local_layers and len(self.local_layers) != self.depth:
      raise ValueError(
        f'local_layers names {len(self.local_layers)} layers, the model has '
        f'{self.depth}.'
      )

  @property
  def windows(self) -> tuple[int, ...]:
    """How many tokens each layer sees, [L]."""
    local = self.local_layers or (False,) * self.depth
    return tuple(self.window if is_local else GLOBAL for is_local in local)
