"""GGUF files written here, type by type, against `gguf.quants`."""

import jax
import numpy as np
import pytest

from alignax import models
from alignax.models import convert, io, rope
from alignax.models import gguf as ours
from alignax.models.config import RopeScaling

gguf = pytest.importorskip('gguf')

TYPES = ('F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1')
EXACT = 'F32'
NAMES = {hf: name for name, hf in ours.LAYER.items()}
GEMMA_NAMES = {hf: name for name, hf in ours.GEMMA_LAYER.items()}
ARCHS = {
  'llama': dict(),
  'qwen2': dict(
    family='qwen2', qkv_bias=True, tie_embeddings=False, norm_eps=1e-6
  ),
  'qwen3': dict(family='qwen3', qk_norm=True, rope_theta=1e6),
  'gemma2': dict(
    family='gemma2',
    activation='gelu_tanh',
    norm_offset=1.0,
    embed_scale=32**0.5,
    post_norms=True,
    query_scale=8**-0.5,
    window=8,
    local_layers=(True, False),
    attn_softcap=50.0,
    final_softcap=30.0,
  ),
  'gemma3': dict(
    family='gemma3_text',
    activation='gelu_tanh',
    norm_offset=1.0,
    embed_scale=32**0.5,
    post_norms=True,
    qk_norm=True,
    query_scale=8**-0.5,
    rope_theta=1e6,
    rope_scaling=RopeScaling('linear', 8.0),
    local_rope_theta=1e4,
    window=8,
    local_layers=(True, True),
  ),
}


def gguf_name(name: str, table: dict) -> str:
  stem, _, suffix = name.removeprefix('model.').rpartition('.')
  if not stem.startswith('layers.'):
    top = {
      'embed_tokens': 'token_embd',
      'norm': 'output_norm',
      'lm_head': 'output',
    }
    return f'{top[stem]}.{suffix}'
  _, layer, module = stem.split('.', 2)
  return f'blk.{layer}.{table[module]}.{suffix}'


def interleave(x: np.ndarray, heads: int) -> np.ndarray:
  """Rotary pairs (i, i + d/2) of every head become (2i, 2i + 1)."""
  rows = x.reshape(heads, 2, -1, *x.shape[1:])
  return np.stack([rows[:, 0], rows[:, 1]], axis=2).reshape(x.shape)


def tensors_of(model, params, kind: str = EXACT):
  """What a GGUF file holds, and the state dict that reading it gives back."""
  config = model.config
  names = GEMMA_NAMES if config.post_norms else NAMES
  qtype = gguf.GGMLQuantizationType[kind]
  stored, expected = {}, {}
  for name, x in convert.to_hf(config, params).items():
    heads = {'q_proj': config.num_heads, 'k_proj': config.num_kv_heads}
    heads = heads.get(name.split('.')[-2])
    permuted = config.family == 'llama' and heads
    y = interleave(x, heads) if permuted else x
    y = y + config.norm_offset if 'norm' in name else y
    if x.ndim == 1:  # As llama.cpp does: vectors stay float32.
      stored[gguf_name(name, names)] = (y.astype(np.float32), None)
      expected[name] = x
      continue
    packed = gguf.quants.quantize(y, qtype)
    plain = gguf.quants.dequantize(packed, qtype)
    stored[gguf_name(name, names)] = (packed, qtype)
    # Rows are quantised one by one, so their order changes nothing.
    expected[name] = gguf.quants.dequantize(
      gguf.quants.quantize(x, qtype), qtype
    )
    if permuted:
      np.testing.assert_array_equal(plain, interleave(expected[name], heads))
  return stored, expected


def write(path, arch, config, stored, extra=lambda writer: None):
  writer = gguf.GGUFWriter(path, arch)
  writer.add_block_count(config.depth)
  writer.add_context_length(config.max_length)
  writer.add_embedding_length(config.width)
  writer.add_feed_forward_length(config.mlp_width)
  writer.add_head_count(config.num_heads)
  writer.add_head_count_kv(config.num_kv_heads)
  writer.add_key_length(config.head_dim)
  writer.add_rope_freq_base(config.rope_theta)
  writer.add_layer_norm_rms_eps(config.norm_eps)
  if config.local_layers:
    writer.add_sliding_window(config.window)
  if config.rope_scaling is not None and config.rope_scaling.kind == 'linear':
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(config.rope_scaling.factor)
  if config.attn_softcap:
    writer.add_attn_logit_softcapping(config.attn_softcap)
    writer.add_final_logit_softcapping(config.final_softcap)
  extra(writer)
  for name, (x, qtype) in stored.items():
    writer.add_tensor(name, np.ascontiguousarray(x), raw_dtype=qtype)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


@pytest.fixture
def llama(tiny):
  return tiny(mlp_width=64)


@pytest.mark.parametrize('kind', TYPES)
def test_types(llama, tmp_path, kind):
  model, params = llama
  stored, expected = tensors_of(model, params, kind)
  write(tmp_path / 'tiny.gguf', 'llama', model.config, stored)
  loaded, found = models.load(tmp_path / 'tiny.gguf')
  assert loaded == model
  found = convert.to_hf(model.config, found)
  for name, x in expected.items():
    np.testing.assert_array_equal(found[name], x, err_msg=name)


@pytest.mark.parametrize('arch', ARCHS)
def test_architectures(tiny, tmp_path, arch):
  model, params = tiny(mlp_width=64, **ARCHS[arch])
  params = jax.tree.map(lambda x: x + 0.125, params)  # Norms off their start.
  stored, _ = tensors_of(model, params)
  write(tmp_path / 'tiny.gguf', arch, model.config, stored)
  loaded, found = models.load(tmp_path / 'tiny.gguf')
  assert loaded == model
  expected = convert.flatten(params)
  for path, x in convert.flatten(found).items():
    # Adding 1 to the norms of Gemma and taking it away again rounds.
    np.testing.assert_allclose(x, expected[path], atol=1e-7, err_msg=path)


def test_llama3_scaling_from_its_divisors(tiny, tmp_path):
  scaling = RopeScaling('llama3', 32.0, 1.0, 4.0, 8192)
  model, params = tiny(
    mlp_width=64, head_dim=64, rope_theta=5e5, rope_scaling=scaling
  )
  stored, _ = tensors_of(model, params)
  plain = rope.frequencies(64, 5e5)
  divisors = plain / rope.frequencies(64, 5e5, scaling)
  stored['rope_freqs.weight'] = (divisors.astype(np.float32), None)
  write(tmp_path / 'tiny.gguf', 'llama', model.config, stored)
  assert models.load(tmp_path / 'tiny.gguf')[0] == model
  stored['rope_freqs.weight'] = (divisors.astype(np.float32) ** 2, None)
  write(tmp_path / 'other.gguf', 'llama', model.config, stored)
  with pytest.raises(ValueError, match='not the scaling of Llama 3'):
    models.load(tmp_path / 'other.gguf')


def test_transformers_gives_the_same_logits(pair, tmp_path):
  """The order of rotary pairs, checked by what it is for."""
  p = pair('smollm2')
  stored, _ = tensors_of(p.model, p.params)
  write(tmp_path / 'tiny.gguf', 'llama', p.model.config, stored)
  loaded, params = models.load(tmp_path / 'tiny.gguf')
  assert loaded == p.model
  tokens = np.arange(1, 25)[None].repeat(2, 0)
  ones = np.ones_like(tokens)
  positions = np.arange(24)[None].repeat(2, 0)
  np.testing.assert_allclose(
    p.logits(params, tokens, ones, positions),
    p.hf_logits(tokens, ones, positions),
    atol=2e-4,
  )


@pytest.fixture(scope='module')
def trained():
  """A byte-level tokenizer with digits apart, as SmolLM's."""
  from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
  from tokenizers import models as kinds

  tokenizer = Tokenizer(kinds.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(
    ['the cat sat on the mat', "it's 1999 there, isn't it?"] * 5,
    trainers.BpeTrainer(
      vocab_size=300,
      special_tokens=['<|unk|>', '<|start|>', '<|end|>'],
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  return tokenizer


class TestTokenizer:
  def file(self, trained, path, tiny, pre='smollm', **options):
    import json

    vocab = trained.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    merges = json.loads(trained.to_str())['model']['merges']

    def extra(writer):
      writer.add_tokenizer_model(options.get('model', 'gpt2'))
      writer.add_tokenizer_pre(pre)
      writer.add_token_list(tokens)
      writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
      writer.add_token_merges([' '.join(pair) for pair in merges])
      writer.add_bos_token_id(1)
      writer.add_eos_token_id(2)
      writer.add_unk_token_id(0)
      writer.add_pad_token_id(2)
      writer.add_add_bos_token(options.get('bos', False))
      writer.add_chat_template('{{ messages[0].content }}<|end|>')

    model, params = tiny(mlp_width=64, vocab_size=len(tokens))
    write(path, 'llama', model.config, tensors_of(model, params)[0], extra)
    return model, params

  def test_round_trip(self, trained, tmp_path, tiny):
    transformers = pytest.importorskip('transformers')
    source = tmp_path / 'tiny.gguf'
    self.file(trained, source, tiny)
    model, params = models.load(source)
    models.save(tmp_path / 'model', model, params, tokenizer=source)
    again = transformers.PreTrainedTokenizerFast.from_pretrained(
      tmp_path / 'model'
    )
    text = "the cat isn't\n\n<|end|>  on 2024 mats, déjà vu<|start|>"
    assert again(text).input_ids == trained.encode(text).ids
    assert again.decode(again(text).input_ids) == text
    assert (again.bos_token_id, again.eos_token_id) == (1, 2)
    assert (again.unk_token_id, again.pad_token_id) == (0, 2)
    assert again.all_special_ids and '<|end|>' in again.all_special_tokens
    chat = [{'role': 'user', 'content': 'hi'}]
    assert again.apply_chat_template(chat, tokenize=False) == 'hi<|end|>'
    assert io.token_ids(tmp_path / 'model') == dict(
      bos_token_id=1, eos_token_id=2, pad_token_id=2
    )

  @pytest.mark.parametrize('pre', ['gpt2', 'llama-bpe', 'qwen2'])
  def test_kinds_decode_what_they_encode(self, trained, tmp_path, tiny, pre):
    from alignax.models import gguf_tokenizer

    self.file(trained, tmp_path / 'tiny.gguf', tiny, pre=pre, bos=True)
    reader = ours.open_file(tmp_path / 'tiny.gguf')
    tokenizer = gguf_tokenizer.build(reader)
    text = "the cat isn't there in 2024\n\n  or\tis it? <|end|>"
    encoded = tokenizer.encode(text)
    assert encoded.ids[0] == 1  # The file asks for it.
    assert tokenizer.decode(encoded.ids[1:], skip_special_tokens=False) == text

  @pytest.mark.parametrize(
    'options', [dict(pre='jais'), dict(model='bert')], ids=['pre', 'model']
  )
  def test_unsupported(self, trained, tmp_path, tiny, options):
    model, params = self.file(trained, tmp_path / 'a.gguf', tiny, **options)
    with pytest.raises(ValueError, match='is not supported .*tokenizer.json'):
      models.save(tmp_path / 'm', model, params, tokenizer=tmp_path / 'a.gguf')

  @pytest.mark.parametrize('prefix', [True, False], ids=['llama', 'gemma'])
  def test_sentencepiece(self, tmp_path, tiny, prefix):
    """Scores in place of merges, against the library itself."""
    spm = pytest.importorskip('sentencepiece')
    from alignax.models import gguf_tokenizer

    text = ["the cat sat on the mat, isn't it there?", 'they are theirs'] * 9
    spm.SentencePieceTrainer.train(
      sentence_iterator=iter(text),
      model_prefix=str(tmp_path / 'spm'),
      model_type='bpe',
      vocab_size=300,
      byte_fallback=True,
      add_dummy_prefix=prefix,
      normalization_rule_name='identity',
      remove_extra_whitespaces=False,
      minloglevel=2,
    )
    theirs = spm.SentencePieceProcessor(str(tmp_path / 'spm.model'))
    ids = range(theirs.vocab_size())
    kinds = [
      2
      if theirs.is_unknown(i)
      else 3
      if theirs.is_control(i)
      else 6
      if theirs.is_byte(i)
      else 1
      for i in ids
    ]

    def extra(writer):
      writer.add_tokenizer_model('llama')
      writer.add_token_list([theirs.id_to_piece(i) for i in ids])
      writer.add_token_scores([theirs.get_score(i) for i in ids])
      writer.add_token_types(kinds)
      writer.add_bos_token_id(1)
      writer.add_eos_token_id(2)
      writer.add_unk_token_id(0)
      writer.add_add_space_prefix(prefix)

    model, params = tiny(mlp_width=64, vocab_size=len(kinds))
    path = tmp_path / 'a.gguf'
    write(path, 'llama', model.config, tensors_of(model, params)[0], extra)
    found = gguf_tokenizer.build(ours.open_file(path))
    for line in (
      'the cat',
      ' they  sat\n\there',
      'déjà vu 日本',
      'isnt the the',
    ):
      encoded = found.encode(line).ids
      assert encoded == [1, *theirs.encode(line)]
      assert found.decode(encoded) == line

  @pytest.mark.slow
  def test_a_run_starts_from_the_file(self, trained, tmp_path, tiny):
    from alignax import run
    from configs import sft

    source = tmp_path / 'tiny.gguf'
    self.file(trained, source, tiny)
    rows = '{"text": "the cat is on 3 mats"}\n' * 16
    (tmp_path / 'rows.jsonl').write_text(rows)
    config = sft.get_config(
      f'size=custom,init_from={source},data={tmp_path / "rows.jsonl"}'
    )
    config.total_steps = 1
    config.model.remat = 'none'
    config.data.update(length=64, packing=False)
    run.train(config, tmp_path / 'run')
    assert (tmp_path / 'run' / 'tokenizer.json').exists()
    model, _ = models.load(tmp_path / 'run')
    assert model.config.vocab_size == trained.get_vocab_size()

  def test_none(self, llama, tmp_path):
    model, params = llama
    write(
      tmp_path / 'a.gguf', 'llama', model.config, tensors_of(model, params)[0]
    )
    with pytest.raises(ValueError, match='holds no tokenizer'):
      models.save(tmp_path / 'm', model, params, tokenizer=tmp_path / 'a.gguf')


class TestBadInput:
  def test_other_types(self, llama, tmp_path):
    model, params = llama
    stored, _ = tensors_of(model, params, 'Q8_0')
    name = 'blk.1.ffn_up.weight'
    x = np.ones((64, 32), np.float32)
    kind = gguf.GGMLQuantizationType.Q5_0
    stored[name] = (gguf.quants.quantize(x, kind), kind)
    write(tmp_path / 'a.gguf', 'llama', model.config, stored)
    with pytest.raises(
      ValueError, match='a.gguf: blk.1.ffn_up.weight has type Q5_0; .*Q4_1'
    ):
      models.load(tmp_path / 'a.gguf')

  def test_corrupt(self, llama, tmp_path):
    model, params = llama
    write(
      tmp_path / 'a.gguf', 'llama', model.config, tensors_of(model, params)[0]
    )
    whole = (tmp_path / 'a.gguf').read_bytes()
    cut = (whole[:100], whole[:500], whole[:-3000])
    for damaged in (b'', b'\xff' * 200, *cut):
      (tmp_path / 'b.gguf').write_bytes(damaged)
      with pytest.raises(ValueError, match='b.gguf is not a readable GGUF'):
        models.load(tmp_path / 'b.gguf')

  def test_architecture(self, llama, tmp_path):
    model, params = llama
    stored, _ = tensors_of(model, params)
    write(tmp_path / 'a.gguf', 'mamba', model.config, stored)
    with pytest.raises(ValueError, match="'mamba' is not supported.*'qwen3'"):
      models.load(tmp_path / 'a.gguf')

  def test_missing_tensor(self, llama, tmp_path):
    model, params = llama
    stored, _ = tensors_of(model, params)
    del stored['blk.1.ffn_up.weight']
    write(tmp_path / 'a.gguf', 'llama', model.config, stored)
    with pytest.raises(ValueError, match='layers.1.mlp.up_proj.weight is miss'):
      models.load(tmp_path / 'a.gguf')

  def test_experts(self, llama, tmp_path):
    model, params = llama
    stored, _ = tensors_of(model, params)
    add = lambda writer: writer.add_expert_count(8)
    write(tmp_path / 'a.gguf', 'llama', model.config, stored, add)
    with pytest.raises(ValueError, match='experts are not implemented'):
      models.load(tmp_path / 'a.gguf')

  def test_missing_metadata(self, llama, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / 'a.gguf', 'llama')
    writer.add_tensor('token_embd.weight', np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match='lacks.*llama.block_count'):
      models.load(tmp_path / 'a.gguf')
