"""Every way in and out: native directories, Hugging Face's, and the errors."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alignax import models
from alignax.models import convert, hf

VARIANTS = {
  'tied': dict(),
  'untied': dict(tie_embeddings=False),
  'qwen2': dict(family='qwen2', qkv_bias=True),
  'qwen3': dict(family='qwen3', qk_norm=True, tie_embeddings=False),
  'gemma2': dict(
    family='gemma2',
    activation='gelu_tanh',
    norm_offset=1.0,
    embed_scale=32**0.5,
    post_norms=True,
    query_scale=8**-0.5,
    window=8,
    local_layers=(True, False),
  ),
}


def same(found, expected) -> None:
  """The same tree, shapes, types and bits."""
  found, expected = convert.flatten(found), convert.flatten(expected)
  assert found.keys() == expected.keys()
  for path, x in expected.items():
    assert found[path].dtype == x.dtype, path
    np.testing.assert_array_equal(found[path], x, err_msg=path)


@pytest.fixture(params=VARIANTS)
def variant(request, tiny):
  return tiny(**VARIANTS[request.param])


class TestHuggingFace:
  def test_export_then_import_is_bit_exact(self, variant, tmp_path):
    model, params = variant
    models.export(tmp_path / 'hf', model, params)
    loaded, found = models.load(tmp_path / 'hf')
    assert loaded == model
    same(found, params)

  @pytest.mark.parametrize(
    'name',
    [
      'llama',
      'smollm2',
      'mistral',
      'qwen2_window',
      'qwen3',
      'gemma2',
      'gemma3',
    ],
  )
  def test_transformers_loads_the_export(self, pair, tmp_path, name):
    torch = pytest.importorskip('torch')
    import transformers

    p = pair(name)
    models.export(tmp_path / 'hf', p.model, p.params)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path / 'hf', output_loading_info=True, attn_implementation='eager'
    )
    assert not any(report.values())
    assert type(again) is type(p.hf)
    expected = p.hf.state_dict()
    for key, x in again.state_dict().items():
      assert torch.equal(x, expected[key]), key
    tokens = torch.arange(1, 25)[None]
    with torch.no_grad():
      assert torch.equal(again(tokens).logits, p.hf(tokens).logits)

  def test_shards_of_bfloat16(self, tiny, tmp_path):
    model, params = tiny(tie_embeddings=False)
    params = jax.tree.map(lambda x: x.astype('bfloat16'), params)
    models.export(tmp_path / 'hf', model, params, shard_bytes=10_000)
    files = sorted(p.name for p in (tmp_path / 'hf').glob('*.safetensors'))
    assert len(files) > 2 and files[0].startswith('model-00001-of-0000')
    _, found = models.load(tmp_path / 'hf', param_dtype=None)
    same(found, params)
    _, wide = models.load(tmp_path / 'hf')
    same(wide, jax.tree.map(lambda x: x.astype('float32'), params))

  def test_transformers_loads_bfloat16_shards(self, tiny, tmp_path):
    torch = pytest.importorskip('torch')
    import transformers

    model, params = tiny(tie_embeddings=False)
    params = jax.tree.map(lambda x: x.astype('bfloat16'), params)
    models.export(tmp_path / 'hf', model, params, shard_bytes=10_000)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf')
    weight = theirs.lm_head.weight
    assert weight.dtype == torch.bfloat16
    np.testing.assert_array_equal(
      weight.float().detach().numpy(),
      np.asarray(params['lm_head']['embedding'], np.float32),
    )

  @pytest.mark.parametrize('tied', [True, False])
  def test_reward_model(self, tiny, tmp_path, tied):
    model, params = tiny(tie_embeddings=tied)
    params = models.add_value_head(params)
    head = {
      'kernel': np.arange(32.0, dtype=np.float32) / 32,
      'bias': np.float32(0.3),
    }
    params = params | {'value_head': jax.tree.map(jax.numpy.asarray, head)}
    models.export(tmp_path / 'hf', model, params)
    _, found = models.load(tmp_path / 'hf')
    same(found, params)

  def test_transformers_scores_as_our_reward_model(self, tiny, tmp_path):
    torch = pytest.importorskip('torch')
    import transformers

    model, params = tiny(tie_embeddings=False)
    params = models.add_value_head(params)
    params['value_head']['kernel'] = jax.random.normal(jax.random.key(1), (32,))
    models.export(tmp_path / 'hf', model, params)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
      tmp_path / 'hf'
    ).eval()
    tokens = np.arange(1, 13)[None]
    with torch.no_grad():
      score = theirs(torch.tensor(tokens)).logits.numpy()
    ours = jax.jit(model.values)(params, {'inputs': tokens})
    np.testing.assert_allclose(ours[:, -1:], score, atol=2e-4)

  def test_wrapped_decoders(self, tiny, tmp_path):
    """Multimodal checkpoints: the text model's tensors, whatever is around."""
    from safetensors.numpy import save_file

    model, params = tiny()
    tensors = convert.to_hf(model.config, params)
    for prefix in ('language_model.model.', 'model.language_model.'):
      wrapped = {
        prefix + k.removeprefix('model.'): x for k, x in tensors.items()
      }
      wrapped['vision_tower.patches.weight'] = np.ones(3, np.float32)
      save_file(wrapped, tmp_path / hf.WEIGHTS)
      same(hf.read_params(tmp_path, model.config), params)

  def test_head_that_repeats_the_embedding(self, tiny, tmp_path):
    from safetensors.numpy import save_file

    model, params = tiny()
    tensors = convert.to_hf(model.config, params)
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'].copy()
    save_file(tensors, tmp_path / hf.WEIGHTS)
    same(hf.read_params(tmp_path, model.config), params)
    tensors['lm_head.weight'] += 1
    save_file(tensors, tmp_path / hf.WEIGHTS)
    with pytest.raises(ValueError, match='tie_word_embeddings: true, but lm_h'):
      hf.read_params(tmp_path, model.config)


class TestNative:
  def test_round_trip(self, variant, tmp_path):
    model, params = variant
    models.save(tmp_path / 'model', model, params)
    loaded, found = models.load(tmp_path / 'model')
    assert loaded == model
    same(found, params)

  def test_types(self, tiny, tmp_path):
    model, params = tiny()
    half = jax.tree.map(lambda x: x.astype('bfloat16'), params)
    models.save(tmp_path / 'model', model, half)
    same(models.load(tmp_path / 'model', param_dtype=None)[1], half)
    loaded, wide = models.load(
      tmp_path / 'model', dtype='bfloat16', remat='block'
    )
    same(wide, jax.tree.map(lambda x: x.astype('float32'), half))
    assert loaded.config == dataclasses.replace(
      model.config, dtype='bfloat16', remat='block'
    )

  def test_reward_model(self, tiny, tmp_path):
    model, params = tiny(tie_embeddings=False)
    params = models.add_value_head(params)
    models.save(tmp_path / 'model', model, params)
    same(models.load(tmp_path / 'model')[1], params)

  @pytest.mark.parametrize('kind', ['save', 'export'])
  def test_onto_a_mesh(self, tiny, tmp_path, kind):
    model, params = tiny(tie_embeddings=False)
    getattr(models, kind)(tmp_path / 'model', model, params)
    mesh = jax.make_mesh((len(jax.devices()),), ('data',))
    split = NamedSharding(mesh, P('data'))
    whole = NamedSharding(mesh, P())
    place = lambda tree: jax.tree.map(
      lambda x: split if x.shape[0] % 8 == 0 else whole, tree
    )
    for shardings in (place, place(params)):
      _, found = models.load(tmp_path / 'model', shardings=shardings)
      same(found, params)
      table = found['embed']['embedding']
      assert table.sharding.is_equivalent_to(split, 2)

  def test_a_run(self, tiny, tmp_path):
    """A run's directory: model.json beside checkpoints of several roles."""
    from alignax import checkpoint

    model, params = tiny()
    models.write_description(tmp_path, model)
    step = tmp_path / 'checkpoints' / '7'
    from orbax.checkpoint import v1 as ocp

    (tmp_path / 'checkpoints').mkdir()
    value = models.add_value_head(params)
    ocp.save_checkpointables(
      step, {'params_policy': params, 'params_value': value}
    )
    assert checkpoint.roles(tmp_path / 'checkpoints') == ('policy', 'value')
    loaded, found = models.load(tmp_path)
    assert loaded == model
    same(found, params)
    same(models.load(tmp_path, role='value')[1], value)

  def test_saving_replaces_only_models(self, tiny, tmp_path):
    model, params = tiny()
    models.save(tmp_path / 'model', model, params)
    models.save(tmp_path / 'model', model, params)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['model']
    (tmp_path / 'letters').mkdir()
    (tmp_path / 'letters' / 'dear.txt').write_text('...')
    with pytest.raises(FileExistsError, match='dear.txt'):
      models.save(tmp_path / 'letters', model, params)

  def test_a_failed_save_keeps_the_old_model(self, tiny, tmp_path, monkeypatch):
    model, params = tiny()
    models.export(tmp_path / 'hf', model, params)

    def full(*_, **__):
      raise OSError(28, 'No space left on device')

    monkeypatch.setattr(hf, '_write_tensors', full)
    with pytest.raises(OSError, match='No space left.*unchanged'):
      models.export(tmp_path / 'hf', model, params)
    monkeypatch.undo()
    same(models.load(tmp_path / 'hf')[1], params)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['hf']


class TestTokenizerFiles:
  @pytest.fixture
  def tokenizer(self):
    transformers = pytest.importorskip('transformers')
    from tokenizers import Tokenizer
    from tokenizers import models as kinds

    words = {'<pad>': 0, '<end>': 1, 'a': 2, 'b': 3}
    return transformers.PreTrainedTokenizerFast(
      tokenizer_object=Tokenizer(kinds.WordLevel(words, unk_token='<pad>')),
      pad_token='<pad>',
      eos_token='<end>',
      chat_template='{{ messages[0].content }}',
    )

  def test_travel_with_the_model(self, tiny, tmp_path, tokenizer):
    import transformers

    model, params = tiny()
    models.save(tmp_path / 'native', model, params, tokenizer=tokenizer)
    models.export(tmp_path / 'hf', model, params, tokenizer=tmp_path / 'native')
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    assert again('a').input_ids == [2]
    assert again.chat_template == tokenizer.chat_template
    config = json.loads((tmp_path / 'hf' / 'config.json').read_text())
    assert (config['eos_token_id'], config['pad_token_id']) == (1, 0)

  def test_none_to_copy(self, tiny, tmp_path):
    model, params = tiny()
    models.save(tmp_path / 'native', model, params)
    with pytest.raises(FileNotFoundError, match='native has no tokenizer'):
      models.export(
        tmp_path / 'hf', model, params, tokenizer=tmp_path / 'native'
      )


class TestBadInput:
  @pytest.fixture
  def exported(self, tiny, tmp_path):
    model, params = tiny()
    models.export(tmp_path / 'hf', model, params)
    return tmp_path / 'hf'

  def test_corrupt_safetensors(self, exported):
    whole = (exported / hf.WEIGHTS).read_bytes()
    for damaged in (
      whole[:-50],
      b'',
      b'\xff' * 100,
      b'version https://git-lfs',
    ):
      (exported / hf.WEIGHTS).write_bytes(damaged)
      with pytest.raises(ValueError, match='model.safetensors is not a readab'):
        models.load(exported)

  def test_missing_shard(self, exported):
    (exported / hf.WEIGHTS).unlink()
    index = {'weight_map': {'x': 'gone.safetensors'}}
    (exported / hf.INDEX).write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match='gone.safetensors.*incomplete'):
      models.load(exported)

  def test_no_weights(self, exported):
    (exported / hf.WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match='neither model.safetensors'):
      models.load(exported)

  def test_corrupt_config(self, exported):
    (exported / 'config.json').write_text('{"model_type": ')
    with pytest.raises(ValueError, match='config.json is not valid JSON'):
      models.load(exported)

  def test_another_architecture(self, exported):
    config = json.loads((exported / 'config.json').read_text())
    config |= dict(intermediate_size=40)
    (exported / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'\(48, 32\), expected \(40, 32\)'):
      models.load(exported)
    config |= dict(intermediate_size=48, num_hidden_layers=4)
    (exported / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match='layers.2.*is missing.*and 8 more'):
      models.load(exported)
    config |= dict(num_hidden_layers=1)
    (exported / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match='layers.1.*is unexpected'):
      models.load(exported)

  def test_unexpected_and_missing(self, tiny):
    model, params = tiny()
    tensors = {
      name: convert.Tensor(x.shape, lambda x=x: x)
      for name, x in convert.to_hf(model.config, params).items()
    }
    tensors['model.layers.0.mlp.other.weight'] = tensors.pop(
      'model.norm.weight'
    )
    with pytest.raises(
      ValueError,
      match='mlp.other.weight is unexpected; model.norm.weight is missing',
    ):
      convert.from_hf(model.config, tensors)

  def test_integer_weights(self, exported):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(exported / hf.WEIGHTS)
    tensors['model.norm.weight'] = np.ones(32, np.int8)
    save_file(tensors, exported / hf.WEIGHTS)
    with pytest.raises(ValueError, match='model.norm.weight has type I8'):
      models.load(exported)

  def test_layers_of_several_types(self, tiny):
    model, params = tiny()
    tensors = convert.to_hf(model.config, params)
    name = 'model.layers.1.input_layernorm.weight'
    tensors[name] = tensors[name].astype(ml_dtypes.bfloat16)
    tensors = {
      k: convert.Tensor(x.shape, lambda x=x: x) for k, x in tensors.items()
    }
    with pytest.raises(ValueError, match='layers.1.input.*bfloat16.*float32'):
      convert.from_hf(model.config, tensors)

  def test_native_of_another_architecture(self, tiny, tmp_path):
    model, params = tiny()
    models.save(tmp_path / 'model', model, params)
    path = tmp_path / 'model' / 'model.json'
    value = json.loads(path.read_text())
    value['config']['mlp_width'] = 40
    path.write_text(json.dumps(value))
    with pytest.raises(
      ValueError, match=r'mlp/down/kernel has shape \(2, 48, 32\), expected'
    ):
      models.load(tmp_path / 'model')

  def test_saving_the_wrong_params(self, tiny, tmp_path):
    model, _ = tiny()
    _, params = tiny(tie_embeddings=False)
    with pytest.raises(ValueError, match='lm_head/embedding is unexpected'):
      models.save(tmp_path / 'model', model, params)

  def test_newer_format(self, tiny, tmp_path):
    model, params = tiny()
    models.save(tmp_path / 'model', model, params)
    path = tmp_path / 'model' / 'model.json'
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(ValueError, match='version 9; this alignax reads'):
      models.load(tmp_path / 'model')

  def test_nothing_there(self, tmp_path):
    with pytest.raises(FileNotFoundError, match='no name on the hub'):
      models.load(tmp_path / 'nothing')
    with pytest.raises(FileNotFoundError, match='holds no model'):
      models.load(tmp_path)
    (tmp_path / 'weights.bin').write_bytes(b'')
    with pytest.raises(ValueError, match='not a .gguf file'):
      models.load(tmp_path / 'weights.bin')

  def test_hub_out_of_reach(self, monkeypatch):
    hub = pytest.importorskip('huggingface_hub')

    def offline(*_, **__):
      raise ConnectionError('no route')

    monkeypatch.setattr(hub, 'snapshot_download', offline)
    with pytest.raises(FileNotFoundError, match='Offline, pass a directory'):
      models.load('someone/some-model')
