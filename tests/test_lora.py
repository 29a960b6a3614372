"""LoRA: what joined models compute, what is trained, and what is in memory."""

import dataclasses
import functools
import importlib
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds

from alignax import lora, models, optim, quantize, sharding, train
from alignax.algorithms import distill, ppo
from alignax.models import convert

KEY = jax.random.key(0)
PLAIN = lora.Lora(rank=3, alpha=6.0)
VARIANTS = {
  'lora': PLAIN,
  'dora': dataclasses.replace(PLAIN, dora=True),
  'embeddings': dataclasses.replace(PLAIN, targets='embedding|attn/v'),
  'bfloat16': dataclasses.replace(PLAIN, base='bfloat16'),
  'int8': dataclasses.replace(PLAIN, base='int8'),
  'nf4 dora': dataclasses.replace(PLAIN, base='nf4', dora=True),
}


def shapes_of(model):
  return convert.abstract_params(model.config)


def make(settings, *, seed=0, **config):
  """(model, base as it is kept, fresh adapters)."""
  config = dict(tie_embeddings=False, qkv_bias=True) | config
  model = worlds.make_model(**config)
  base = worlds.make_params(model, seed)
  if settings.base in quantize.KINDS:
    base = quantize.quantise_params(base, settings.base)
  init = functools.partial(
    lora.init_adapters, shapes=shapes_of(model), settings=settings
  )
  return model, base, jax.jit(init)(base, key=KEY)


def trained(adapters, seed=1):
  """Adapters as they might be after training: none of them at its start."""
  leaves, tree = jax.tree.flatten(adapters)
  rng = np.random.default_rng(seed)
  moved = [
    x + 0.1 * rng.normal(size=x.shape).astype(np.float32) for x in leaves
  ]
  return jax.tree.unflatten(tree, moved)


def join(settings, base, adapters):
  roles = {'policy': adapters}
  whole, _ = lora.make_join(settings)(roles, {'base': base})
  return whole['policy']


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params):
  batch = worlds.text(2)
  names = ('inputs', 'segments', 'positions')
  return model.logits(params, *(batch[name] for name in names))


class TestWhatIsComputed:
  @pytest.mark.parametrize('name', VARIANTS)
  def test_it_starts_at_the_base_and_is_the_merged_model(self, name):
    settings = VARIANTS[name]
    model, base, adapters = make(settings)
    plain = lora.merge(base, shapes_of(model), 'float32')
    plain = jax.tree.map(lambda x: x.astype(jnp.float32), plain)
    at_base = logits(model, plain)
    fresh = logits(model, join(settings, base, adapters))
    if settings.base == 'float32' and not settings.dora:
      np.testing.assert_array_equal(fresh, at_base)
    np.testing.assert_allclose(fresh, at_base, atol=1e-5)

    whole = join(settings, base, trained(adapters))
    merged = lora.merge(whole, shapes_of(model), 'float32')
    merged = jax.tree.map(lambda x: x.astype(jnp.float32), merged)
    convert.check_params(model.config, merged)
    found, want = logits(model, whole), logits(model, merged)
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert np.abs(np.asarray(want) - np.asarray(at_base)).max() > 0.1

  def test_merged_kernels_by_hand(self):
    """(W + s A B) m / |W + s A B|, with s = alpha / √rank."""
    settings = dataclasses.replace(PLAIN, dora=True, rslora=True)
    model, base, adapters = make(settings)
    adapters = trained(adapters)
    whole = join(settings, base, adapters)
    merged = lora.merge(whole, shapes_of(model), 'float32')
    for path, inputs in (('attn', 'out'), 2), (('attn', 'q'), 1):
      get = lambda tree: tree['layers'][path[0]][path[1]]  # noqa: B023
      a, b, m = (
        np.asarray(get(adapters)[k], np.float64)
        for k in ('lora_a', 'lora_b', 'magnitude')
      )
      for layer in range(model.config.depth):
        w = np.asarray(get(base)['kernel'][layer], np.float64)
        w = w + 6.0 / math.sqrt(3) * np.tensordot(a[layer], b[layer], 1)
        norm = np.sqrt((w**2).sum(tuple(range(inputs))))
        np.testing.assert_allclose(
          get(merged)['kernel'][layer], w * m[layer] / norm, atol=1e-5
        )

  def test_decoding_reads_the_same_model(self):
    """Log-probs of a rollout are those of the update: the ratio is one."""
    settings = VARIANTS['nf4 dora']
    model, base, adapters = make(settings, dtype='bfloat16')
    whole = join(settings, base, trained(adapters))
    tokens = worlds.text(2)['inputs']

    @jax.jit
    def decode(params):
      cache = model.init_cache(2, tokens.shape[1])
      params, cache = model.for_decoding(params, cache)
      step = lambda cache, token: model.decode(params, cache, token)[::-1]
      return jax.lax.scan(step, cache, tokens.T)[1]

    found = decode(whole).swapaxes(0, 1)
    want = jax.jit(model.logits)(whole, tokens)
    np.testing.assert_allclose(found, want, atol=0.05)

  def test_the_fused_head_sees_the_adapter_of_the_head(self):
    settings = VARIANTS['embeddings']
    model, base, adapters = make(settings)
    whole = join(settings, base, trained(adapters))
    batch = worlds.text(2)
    merged = lora.merge(whole, shapes_of(model), 'float32')
    logps = jax.jit(model.logps)
    np.testing.assert_allclose(
      logps(whole, batch), logps(merged, batch), atol=1e-5
    )
    with pytest.raises(ValueError, match='use head_factors, or leave lm_head'):
      model.head_weight(whole)


  def test_so_does_a_distillation(self):
    settings = VARIANTS['embeddings']
    model, base, adapters = make(settings)
    whole = join(settings, base, trained(adapters))
    merged = lora.merge(whole, shapes_of(model), 'float32')
    taught = worlds.make_params(model, 3)
    batch = worlds.text(2)
    evaluate = distill.make_eval({'policy': model, 'teacher': model})
    losses = [
      evaluate({'policy': student}, {'teacher': teacher}, batch, KEY)['loss']
      for student, teacher in [
        (whole, taught), (merged, taught), (taught, whole), (taught, merged),
      ]
    ]  # fmt: skip
    assert losses[0] > 0.01
    np.testing.assert_allclose(losses[::2], losses[1::2], atol=1e-5)


class TestGradients:
  def test_are_those_of_the_merged_model(self):
    """dL/dA = s dL/dW Bᵀ and dL/dB = s Aᵀ dL/dW."""
    model, base, adapters = make(PLAIN)
    adapters = trained(adapters)
    batch = worlds.text(2)
    loss = lambda params: -jnp.sum(model.logps(params, batch))
    found = jax.jit(jax.grad(lambda tree: loss(join(PLAIN, base, tree))))(
      adapters
    )
    merged = lora.merge(
      join(PLAIN, base, adapters), shapes_of(model), 'float32'
    )
    by_kernel = jax.jit(jax.grad(loss))(merged)
    for name in ('gate', 'down'):
      of = lambda tree: tree['layers']['mlp'][name]  # noqa: B023
      dw, a, b = (
        of(by_kernel)['kernel'],
        of(adapters)['lora_a'],
        of(adapters)['lora_b'],
      )
      want = {
        'lora_a': 2.0 * jnp.einsum('lio,lro->lir', dw, b),
        'lora_b': 2.0 * jnp.einsum('lir,lio->lro', a, dw),
      }
      worlds.assert_trees_close(of(found), want, atol=2e-4)

  def test_dora_takes_norms_as_constants(self):
    """As in section 4.3 of the paper: not those of the merged model."""
    settings = VARIANTS['dora']
    model, base, adapters = make(settings)
    adapters = trained(adapters)
    down = lambda tree: tree['layers']['mlp']['down']
    module, x = down(base), jnp.ones((16,))

    def output(leaves, norms):
      low = 2.0 * jnp.einsum('i,lir,lro->lo', x, leaves['lora_a'],
                             leaves['lora_b'])  # fmt: skip
      y = jnp.einsum('i,lio->lo', x, module['kernel']) + low
      return jnp.sum(jnp.sin(y * leaves['magnitude'] / norms))

    def ours(leaves):
      settled = lora.settle(module, leaves, settings.scale)
      y = jnp.einsum('i,lio->lo', x, module['kernel'])
      y += jnp.einsum('i,lir,lro->lo', x, settled['lora_a'], settled['lora_b'])
      return jnp.sum(jnp.sin(y * settled['lora_gain']))

    leaves = down(adapters)
    scaled = leaves['lora_b'] * 2.0
    norms = lora.column_norms(
      {'kernel': module['kernel']}, leaves['lora_a'], scaled
    )
    worlds.assert_trees_close(
      jax.grad(ours)(leaves), jax.grad(output)(leaves, norms), atol=1e-5
    )


class TestTargets:
  def test_all_projections_by_default(self):
    shapes = shapes_of(worlds.make_model())
    found = lora.find_targets(shapes, PLAIN)
    names = {path.split('/')[2] for path in found}
    assert names == {'q', 'k', 'v', 'out', 'gate', 'up', 'down'}

  def test_a_rule_that_matches_nothing(self):
    shapes = shapes_of(worlds.make_model())
    with pytest.raises(ValueError, match="'attn/o_proj' matches .*attn/out"):
      lora.find_targets(shapes, lora.Lora(rank=1, targets='attn/o_proj'))

  def test_a_tied_embedding_cannot_be_adapted(self):
    shapes = shapes_of(worlds.make_model(tie_embeddings=True))
    with pytest.raises(ValueError, match='matches no parameter'):
      lora.find_targets(shapes, lora.Lora(rank=1, targets='embedding'))

  def test_dora_of_embeddings_is_refused(self):
    shapes = shapes_of(worlds.make_model(tie_embeddings=False))
    settings = dataclasses.replace(VARIANTS['embeddings'], dora=True)
    with pytest.raises(ValueError, match='embed/embedding, lm_head'):
      lora.find_targets(shapes, settings)

  def test_norms_are_no_targets(self):
    shapes = shapes_of(worlds.make_model(qk_norm=True))
    with pytest.raises(ValueError, match='matches no parameter'):
      lora.find_targets(shapes, lora.Lora(rank=1, targets='norm'))


class TestRoles:
  def test_a_frozen_role_without_anything_is_the_base(self):
    _, base, adapters = make(PLAIN)
    whole = worlds.make_params(worlds.make_model(), 3, value_head=True)
    settled = lora.settle(base, trained(adapters), 0.5)
    head = {'value_head': {'kernel': jnp.ones(16), 'bias': jnp.zeros(())}}
    frozen = {
      'base': base, 'ref': {}, 'judge': whole, 'reward': settled | head
    }  # fmt: skip
    _, found = lora.make_join(PLAIN)({}, frozen)
    assert found.keys() == {'ref', 'judge', 'reward'}
    assert jax.tree.leaves(found['ref']) == jax.tree.leaves(base)
    assert found['judge'] is whole
    gate = found['reward']['layers']['mlp']['gate']
    assert gate['kernel'] is base['layers']['mlp']['gate']['kernel']
    assert gate['lora_b'] is settled['layers']['mlp']['gate']['lora_b']
    kernel = found['reward']['value_head']['kernel']
    assert kernel is head['value_head']['kernel']


ALGORITHMS = {
  'sft': (worlds.text, {}),
  'reward': (worlds.comparisons, {}),
  'dpo': (worlds.comparisons, {}),
  'ppo': (worlds.prompts, dict(max_new_tokens=3)),
}
SCALAR = ('value', 'reward')


def build(name, sizes, settings):
  """(mesh, step, state, frozen) of an algorithm on a shared base."""
  module = importlib.import_module(f'alignax.algorithms.{name}')
  kw = ALGORITHMS[name][1]
  roles, read_only = module.TRAINED, module.FROZEN
  model, base, _ = make(settings, qkv_bias=False)
  mesh = worlds.make_mesh(sizes)

  def adapters(role, i):
    tree = lora.init_adapters(
      base, shapes_of(model), settings, jax.random.fold_in(KEY, i)
    )
    if role in SCALAR:
      kernel = 0.3 * jax.random.normal(jax.random.fold_in(KEY, 9), (16,))
      tree |= {'value_head': {'kernel': kernel, 'bias': jnp.zeros(())}}
    return tree

  tx = optax.adam(1e-2)
  extra = module.init_extra(**kw) if hasattr(module, 'init_extra') else None
  state, where = worlds.make_state(
    mesh, {role: adapters(role, i) for i, role in enumerate(roles)}, tx,
    extra=extra,
  )  # fmt: skip
  frozen = {'base': base, 'ref': {}}
  if 'reward' in read_only:
    frozen['reward'] = lora.settle(base, trained(adapters('reward', 5)), 0.5)
  frozen = worlds.place(mesh, frozen)
  step = module.make_step(
    dict.fromkeys((*roles, *read_only), model), tx, **kw,
    join=lora.make_join(settings), state_sharding=where,
  )  # fmt: skip
  return mesh, step, state, frozen


@functools.cache
def run(name, sizes, settings, steps=3):
  """Metrics, and parameters before and after."""
  mesh, step, state, frozen = build(name, sizes, settings)
  before = jax.tree.map(np.array, (state.params, frozen))
  rows = []
  with jax.set_mesh(mesh):
    for i in range(steps):
      batch = sharding.shard_batch(mesh, ALGORITHMS[name][0](seed=i))
      state, metrics = step(state, frozen, batch, KEY)
      rows.append({k: float(v) for k, v in metrics.items()})
  return rows, before, (state.params, frozen)


@pytest.mark.parametrize('name', ALGORITHMS)
def test_adapters_learn_and_the_base_keeps_every_bit(name):
  settings = VARIANTS['nf4 dora' if name in ('dpo', 'ppo') else 'lora']
  rows, (params, frozen), (new, still) = run(name, (1, 1, 1), settings)
  assert len({row['loss'] for row in rows}) == len(rows)
  jax.tree.map(np.testing.assert_array_equal, still, frozen)
  for path, x in convert.flatten(new).items():
    old = convert.flatten(params)[path]
    # What only shifts the scores of a pair alike has no gradient.
    if name == 'reward' and path.endswith('value_head/bias'):
      continue
    assert np.any(np.asarray(x) != old), f'{path} was not trained'
  if name == 'ppo':
    assert rows[0]['policy/ratio'] == pytest.approx(1, abs=1e-5)
    assert rows[0]['objective/kl'] == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['dpo', 'ppo'])
def test_a_mesh_gives_the_losses_of_one_device(name):
  settings = VARIANTS['nf4 dora']
  want, _, _ = run(name, (1, 1, 1), settings)
  found, _, _ = run(name, (2, 2, 2), settings)
  for row, other in zip(found, want):
    assert row['loss'] == pytest.approx(other['loss'], abs=2e-5)


@pytest.mark.parametrize('optimizer', ['adafactor', 'muon'])
@pytest.mark.parametrize('name', ['embeddings', 'int8', 'nf4 dora'])
def test_every_leaf_has_a_rule(optimizer, name):
  settings = VARIANTS[name]
  tx = optim.make_optimizer(total_steps=9, name=optimizer, weight_decay=0.1)
  model = worlds.make_model(
    width=128, mlp_width=256, head_dim=64, tie_embeddings=False
  )

  def init(key):
    base = model.init(key)
    if settings.base in quantize.KINDS:
      base = quantize.quantise_params(base, settings.base)
    adapters = lora.init_adapters(base, shapes_of(model), settings, key)
    state = train.init_state({'policy': adapters}, tx, ema=True)
    return state, base, lora.settle(base, adapters, 1.0)

  shapes = jax.eval_shape(init, KEY)
  mesh = worlds.make_mesh((2, 2, 2))
  where = sharding.shard_by_rules(mesh, sharding.TRANSFORMER_RULES, shapes)
  specs = {
    jax.tree_util.keystr(path, simple=True, separator='/'): x.spec
    for path, x in jax.tree_util.tree_leaves_with_path(where)
  }
  if name == 'nf4 dora':
    spec = specs['1/layers/mlp/gate/nf4/codes']
    assert spec == sharding.P(None, 'fsdp', 'tensor')
    spec = specs['0/params/policy/layers/attn/q/lora_b']
    assert spec == sharding.P(None, None, 'tensor')


def test_muon_and_decay_are_for_the_factors_alone():
  settings = VARIANTS['dora']
  _, _, adapters = make(settings)
  tree = {'policy': adapters}
  decayed = convert.flatten(optim.decay_mask(tree))
  assert {k.rpartition('/')[2]: v for k, v in decayed.items()} == {
    'lora_a': True, 'lora_b': True, 'magnitude': False
  }  # fmt: skip
  tx = optim.make_optimizer(total_steps=2, name='muon', learning_rate=0.1)
  grads = jax.tree.map(jnp.ones_like, trained(tree))
  grads = trained(grads)
  updates, _ = jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(grads, tree)
  out = updates['policy']['layers']['attn']['out']
  a = np.asarray(out['lora_a'][0]).reshape(-1, 3)
  # An orthogonal update: all of its singular values are alike, which those of
  # a sign (Adam's first update) are not.
  values = np.linalg.svd(a, compute_uv=False)
  assert values.max() / values.min() < 2
  signs = np.abs(np.asarray(out['magnitude']))
  np.testing.assert_allclose(signs, signs.flat[0], rtol=1e-3)


def size(tree) -> int:
  return sum(math.prod(x.shape) * x.dtype.itemsize
             for x in jax.tree.leaves(tree))  # fmt: skip


# Wide enough that the base outweighs the activations of a few tokens.
LARGE = models.Config(
  vocab_size=128, width=256, depth=32, num_heads=4, num_kv_heads=4, head_dim=64,
  mlp_width=1024, dtype='bfloat16', remat='block',
)  # fmt: skip
ROWS, TOKENS = 4, 16


def large_world(base):
  """(settings, model, shapes of the base, shapes of adapters)."""
  settings = lora.Lora(rank=2, base=base)
  model = models.Model(LARGE)

  def init(key):
    params = model.init(key)
    if base in quantize.KINDS:
      params = quantize.quantise_params(params, base)
    adapters = lora.init_adapters(params, shapes_of(model), settings, key)
    return params, adapters

  return settings, model, *jax.eval_shape(init, KEY)


@functools.cache
def ppo_memory(base):
  """Bytes of the compiled PPO update, and of one base in bfloat16."""
  settings, model, params, adapters = large_world(base)
  head = jax.eval_shape(
    lambda: {'kernel': jnp.zeros(LARGE.width), 'bias': jnp.zeros(())}
  )
  scored = adapters | {'value_head': head}
  tx = optax.adamw(1e-3)
  state = jax.eval_shape(
    lambda trained: train.init_state(trained, tx, extra=ppo.init_extra()),
    {'policy': adapters, 'value': scored},
  )
  frozen = {'base': params, 'ref': {}, 'reward': scored}
  step = ppo.make_step(
    dict.fromkeys(('policy', 'value', 'reward'), model), tx,
    join=lora.make_join(settings),
  )  # fmt: skip
  learn = inspect.getclosurevars(step).nonlocals['learn']
  tokens = jax.ShapeDtypeStruct((ROWS, TOKENS), jnp.int32)
  numbers = jax.ShapeDtypeStruct((ROWS, TOKENS), jnp.float32)
  by_row = jax.ShapeDtypeStruct((ROWS,), jnp.float32)
  rows = dict.fromkeys(('inputs', 'targets', 'segments', 'positions'), tokens)
  rows |= {
    'mask': jax.ShapeDtypeStruct((ROWS, TOKENS), bool),
    'logps': numbers, 'sampler_logps': numbers,
    'lengths': jax.ShapeDtypeStruct((ROWS,), jnp.int32),
    'finished': jax.ShapeDtypeStruct((ROWS,), bool),
  }  # fmt: skip
  compiled = learn.lower(state, frozen, rows, by_row, None, KEY).compile()
  memory = compiled.memory_analysis()
  total = (
    memory.argument_size_in_bytes + memory.temp_size_in_bytes
    + memory.output_size_in_bytes - memory.alias_size_in_bytes
  )  # fmt: skip
  low = 2 * sum(math.prod(x.shape) for x in jax.tree.leaves(shapes_of(model)))
  return total, low, size((state, scored)), size(params)


class TestMemory:
  def test_ppo_holds_one_copy_of_the_base(self):
    """For policy, reference, value and reward model; activations included.

    A second one, or one in float32, would be 2 or 3 times the base.
    """
    total, one_base, adapters, kept = ppo_memory('bfloat16')
    assert kept == pytest.approx(one_base, rel=1e-2)
    assert total - adapters < 1.35 * one_base

  def test_no_layer_is_kept_dequantised(self):
    """The rest, beside the base, is as with any other base."""
    total, one_base, _, kept = ppo_memory('nf4')
    other, _, _, whole = ppo_memory('bfloat16')
    assert kept < 0.3 * one_base
    assert total - kept < other - whole + 0.1 * one_base


SMOLLM2 = models.Config(
  vocab_size=49152, width=576, depth=30, num_heads=9, num_kv_heads=3,
  head_dim=64, mlp_width=1536,
)  # fmt: skip


def smollm2_bytes(base):
  """Of SFT and of PPO, by how the base is kept; '' trains all weights."""
  model = models.Model(SMOLLM2)
  tx = optax.adamw(1e-3)
  state = lambda params: size(jax.eval_shape(tx.init, params)) + size(params)
  shapes = shapes_of(model)
  if not base:
    value = jax.eval_shape(models.add_value_head, shapes)
    return state(shapes), (
      state(shapes) + state(value) + size(shapes) + size(value)
    )
  settings = lora.Lora(rank=16, base=base)
  kept = shapes
  if base in quantize.KINDS:
    kept = jax.eval_shape(lambda x: quantize.quantise_params(x, base), shapes)
  adapters = jax.eval_shape(
    lambda x, key: lora.init_adapters(x, shapes, settings, key), kept, KEY
  )
  one = size(kept) + state(adapters)
  return one, one + state(adapters) + size(adapters)


ROWS_OF_TABLE = {
  '': 'all weights, float32', 'float32': 'LoRA, base in float32',
  'bfloat16': 'LoRA, base in bfloat16', 'int8': 'LoRA, base in int8',
  'nf4': 'LoRA, base in nf4',
}  # fmt: skip


@pytest.mark.parametrize('base', ROWS_OF_TABLE)
def test_the_table_of_the_docs(base, request):
  text = (request.config.rootpath / 'docs' / 'lora.md').read_text()
  found = ' | '.join(f'{x / 1e6:.1f}' for x in smollm2_bytes(base))
  assert f'| {ROWS_OF_TABLE[base]} | {found} |' in text, found
