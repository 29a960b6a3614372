"""Adapters to PEFT and back: the same logits, in both directions."""

import json

import jax
import numpy as np
import pytest

from alignax import lora, models
from alignax.models import adapters, convert, peft

TOLERANCE = 2e-4
KINDS = {
  'lora': dict(r=4, lora_alpha=8),
  'rslora': dict(r=4, lora_alpha=8, use_rslora=True),
  'dora': dict(r=4, lora_alpha=8, use_dora=True),
  'some': dict(r=2, lora_alpha=3, target_modules=['q_proj', 'down_proj']),
  'layers': dict(r=2, lora_alpha=3, layers_to_transform=[1]),
  'embeddings': dict(
    r=2, lora_alpha=3, target_modules=['embed_tokens', 'lm_head', 'v_proj']
  ),
}
ALL = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj',
       'down_proj']  # fmt: skip


@pytest.fixture(scope='module')
def rows():
  inputs = np.random.default_rng(0).integers(1, 64, (2, 12)).astype(np.int32)
  return inputs, np.ones_like(inputs), np.tile(np.arange(12), (2, 1))


def peft_logits(model, rows):
  import torch

  as_torch = lambda x: torch.tensor(np.asarray(x, np.int64))
  with torch.no_grad():
    return model(
      as_torch(rows[0]),
      attention_mask=as_torch(rows[1]),
      position_ids=as_torch(rows[2]),
    ).logits.numpy()


def base_of(pair):
  """A fresh copy: PEFT changes the model that it is given."""
  import transformers

  return transformers.AutoModelForCausalLM.from_pretrained(
    pair.directory, attn_implementation='eager'
  ).eval()


def make_peft(pair, kind, directory):
  """A random adapter made and saved by PEFT, and its model."""
  torch = pytest.importorskip('torch')
  peft_library = pytest.importorskip('peft')
  options = dict(target_modules=ALL, task_type='CAUSAL_LM') | KINDS[kind]
  torch.manual_seed(1)
  model = peft_library.get_peft_model(
    base_of(pair), peft_library.LoraConfig(**options)
  ).eval()
  with torch.no_grad():
    for name, x in model.named_parameters():
      if 'lora_' in name:
        x.add_(0.1 * torch.randn_like(x))
  model.save_pretrained(directory, save_embedding_layers=False)
  return model


@pytest.mark.parametrize('kind', KINDS)
def test_an_adapter_of_peft_gives_its_logits(pair, rows, tmp_path, kind):
  p = pair('llama')
  model = make_peft(p, kind, tmp_path)
  expected = peft_logits(model, rows)
  base = p.logits(p.params, *rows)
  assert np.abs(expected - base).max() > 0.1
  # Merged, and as training reads it.
  merged = models.load(tmp_path, base=p.directory)[1]
  np.testing.assert_allclose(p.logits(merged, *rows), expected, atol=TOLERANCE)
  _, origin, tree = models.load_adapters(tmp_path, base=p.directory)
  settled = lora.settle(p.params, tree, origin.settings.scale)
  whole = lora.overlay(p.params, settled)
  np.testing.assert_allclose(
    jax.jit(p.model.logits)(whole, *rows), expected, atol=TOLERANCE
  )


@pytest.mark.parametrize('kind', ['lora', 'rslora', 'dora', 'embeddings'])
def test_peft_reads_what_we_write(pair, rows, tmp_path, kind):
  peft_library = pytest.importorskip('peft')
  p = pair('llama')
  options = KINDS[kind]
  settings = lora.Lora(
    rank=options['r'], alpha=options['lora_alpha'],
    dora=kind == 'dora', rslora=kind == 'rslora',
    targets='embedding|attn/v' if kind == 'embeddings' else lora.LINEAR,
  )  # fmt: skip
  tree = random_adapters(p, settings)
  origin = models.Origin(settings, str(p.directory))
  models.save_adapters(tmp_path, p.model, origin, tree, peft_layout=True)
  model = peft_library.PeftModel.from_pretrained(base_of(p), tmp_path).eval()
  found = peft_logits(model, rows)
  settled = lora.settle(p.params, tree, settings.scale)
  merged = lora.merge(
    lora.overlay(p.params, settled),
    convert.abstract_params(p.model.config),
    'float32',
  )
  expected = p.logits(merged, *rows)
  np.testing.assert_allclose(found, expected, atol=TOLERANCE)
  assert np.abs(expected - p.logits(p.params, *rows)).max() > 0.1
  # And back: not a bit is lost.
  _, _, again = models.load_adapters(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, again, tree)


def random_adapters(pair, settings):
  shapes = adapters.abstract(pair.model.config, settings)
  leaves, tree = jax.tree.flatten(shapes)
  rng = np.random.default_rng(2)
  drawn = [0.2 * rng.normal(size=x.shape) for x in leaves]
  tree = jax.tree.unflatten(tree, [x.astype(np.float32) for x in drawn])
  if settings.dora:  # Norms are positive.
    tree = jax.tree_util.tree_map_with_path(
      lambda path, x: abs(x) + 1 if path[-1].key == 'magnitude' else x, tree
    )
  return tree


@pytest.fixture
def written(tiny, tmp_path):
  """A directory of PEFT that needs no torch, and the config of its base."""
  model, params = tiny()
  settings = lora.Lora(rank=2)
  shapes = convert.abstract_params(model.config)
  tree = lora.init_adapters(params, shapes, settings, jax.random.key(0))
  peft.write(tmp_path, model.config, settings, tree, base='somewhere')
  return tmp_path, model.config


def change(directory, **fields):
  path = directory / peft.DESCRIPTION
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


REFUSED = {
  'another method': (dict(peft_type='IA3'), "'IA3'; only LORA is read"),
  'biases': (dict(bias='all'), "bias='all' is not implemented; only 'none'"),
  'ranks': (dict(rank_pattern={'q_proj': 8}), 'rank_pattern='),
  'pissa': (dict(init_lora_weights='pissa'), 'changed the base too'),
  'modules': (dict(modules_to_save=['embed_tokens']), r"\['embed_tokens'\]"),
  'rank': (dict(r=3), r'lora_A.weight has shape \(2, 32\), expected \(3, 32\)'),
}


class TestRefused:
  @pytest.mark.parametrize('name', REFUSED)
  def test_what_would_compute_something_else(self, written, name):
    directory, config = written
    fields, match = REFUSED[name]
    change(directory, **fields)
    with pytest.raises(ValueError, match=match):
      peft.read(directory, config)

  def test_an_adapter_of_a_deeper_model(self, written, tiny):
    directory, _ = written
    model, _ = tiny(depth=1)
    with pytest.raises(ValueError, match='nothing in it takes .*layers.1'):
      peft.read(directory, model.config)

  def test_a_wider_one(self, written, tiny):
    directory, _ = written
    model, _ = tiny(width=16)
    with pytest.raises(ValueError, match=r'has shape .*, expected'):
      peft.read(directory, model.config)

  def test_torch_files(self, written):
    directory, config = written
    (directory / peft.WEIGHTS).rename(directory / 'adapter_model.bin')
    with pytest.raises(FileNotFoundError, match='converted to safetensors'):
      peft.read(directory, config)

  def test_the_base_is_named_where_it_is_missing(self, written):
    directory, _ = written
    with pytest.raises(FileNotFoundError, match='somewhere does not exist'):
      models.load(directory)
