"""Roles on a shared base: where each starts, and what their runs turn into."""

import json

import jax
import numpy as np
import optax
import pytest
import tiny_worlds as worlds

from alignax import (
  checkpoint,
  checks,
  lora,
  lora_roles,
  models,
  sharding,
  train,
)
from alignax.algorithms import dpo, ppo, reward, sft
from alignax.cli import main
from alignax.data import synthetic
from alignax.models import convert
from configs import common

SETTINGS = dict(rank=2, alpha=4.0)


def make_config(base='', **changes):
  config, _ = common.base()
  config.init_from = str(base)
  config.model.remat = 'none'
  config.lora.update(SETTINGS)
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return config


def load(algorithm, config, workdir='.', *, sizes=(1, 1, 1), **kw):
  mesh = worlds.make_mesh(sizes)
  with jax.set_mesh(mesh):
    return lora_roles.load_roles(config, algorithm, kw, mesh, 8, workdir)


def flat(tree):
  return {k: np.asarray(x) for k, x in convert.flatten(tree).items()}


def assert_same(one, two):
  one, two = flat(one), flat(two)
  assert one.keys() == two.keys()
  for name, x in one.items():
    np.testing.assert_array_equal(x, two[name], err_msg=name)


def store_run(path, model, base, role, *, seed, rank=2):
  """A run of LoRA as if trained: every leaf moved from where it started."""
  settings = lora.Lora(**SETTINGS | dict(rank=rank))
  shapes = models.adapters.abstract(model.config, settings)
  leaves, tree = jax.tree.flatten(shapes)
  rng = np.random.default_rng(seed)
  drawn = [0.2 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
  tree = jax.tree.unflatten(tree, drawn)
  if role == 'reward':
    kernel = rng.normal(size=16).astype(np.float32)
    tree['value_head'] = {'kernel': kernel, 'bias': np.float32(0.5)}
  path.mkdir()
  origin = models.Origin(settings, str(base))
  models.write_description(path, model, origin)
  synthetic.make_tokenizer().save_pretrained(path)
  state = train.init_state(jax.tree.map(jax.numpy.array, {role: tree}),
                           optax.sgd(0.1))  # fmt: skip
  saver = checkpoint.Checkpointer(path / 'checkpoints')
  saver.save(1, state)
  saver.close()
  return tree


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """A base, runs of LoRA on it, and a reward model of its own."""
  folder = tmp_path_factory.mktemp('home')
  tokenizer = synthetic.make_tokenizer()
  model = worlds.make_model(vocab_size=len(tokenizer))
  params = worlds.make_params(model)
  models.save(folder / 'base', model, params, tokenizer)
  scores = worlds.make_params(model, 1, value_head=True)
  models.save(folder / 'scores', model, scores, tokenizer)
  store_run(folder / 'sft', model, folder / 'base', 'policy', seed=0)
  store_run(folder / 'reward', model, folder / 'base', 'reward', seed=1)
  store_run(folder / 'wide', model, folder / 'base', 'policy', seed=2, rank=3)
  return folder


def stored(home, name, role):
  return checkpoint.load_role(home / name / 'checkpoints', role)


class TestRoles:
  def test_a_fresh_policy_and_its_reference_are_the_base(self, home):
    roles = load(dpo, make_config(home / 'base'))
    assert roles.trained.keys() == {'policy'}
    leaves = {k.rpartition('/')[2] for k in flat(roles.trained)}
    assert leaves == {'lora_a', 'lora_b'}
    assert roles.frozen.keys() == {'base', 'ref'} and roles.frozen['ref'] == {}
    assert_same(roles.frozen['base'], models.load(home / 'base')[1])
    assert roles.origin.base == str(home / 'base')

  def test_all_roles_go_on_from_adapters_of_one_base(self, home):
    config = make_config(
      home / 'sft', **{'role_from.reward': str(home / 'reward')}
    )
    roles = load(ppo, config)
    assert_same(roles.trained['policy'], stored(home, 'sft', 'policy'))
    # The value function starts from the reward model.
    assert_same(roles.trained['value'], stored(home, 'reward', 'reward'))
    params, frozen = roles.join(roles.trained, roles.frozen)
    assert_same(frozen['ref'], params['policy'])
    assert_same(frozen['reward'], params['value'])
    kernel = lambda tree: tree['layers']['mlp']['up']['kernel']
    trees = (*params.values(), *frozen.values())
    assert len({id(kernel(tree)) for tree in trees}) == 1

  def test_a_reward_model_of_its_own_stays_one(self, home):
    config = make_config(
      home / 'base', **{'role_from.reward': str(home / 'scores')}
    )
    roles = load(ppo, config)
    assert lora.is_whole(roles.frozen['reward'])
    value = flat(roles.trained['value'])
    # On another base than the reward model, the value function starts anew.
    assert not np.any(value['value_head/kernel'])
    assert not np.any(value['layers/mlp/up/lora_b'])

  def test_values_may_sit_on_the_policy(self, home):
    config = make_config(
      home / 'base', **{'role_from.reward': str(home / 'reward')}
    )
    roles = load(ppo, config, shared_value=True)
    assert roles.trained.keys() == {'policy'}
    assert 'value_head' in roles.trained['policy']

  def test_a_reward_model_goes_on_with_its_head(self, home):
    roles = load(reward, make_config(home / 'scores'))
    assert 'value_head' not in roles.frozen['base']
    found = roles.trained['reward']['value_head']
    assert_same(found, models.load(home / 'scores')[1]['value_head'])

  @pytest.mark.parametrize('base', ['bfloat16', 'int8', 'nf4'])
  def test_the_base_is_kept_small_on_a_mesh(self, home, base):
    config = make_config(home / 'base', **{'lora.base': base})
    roles = load(sft, config, sizes=(2, 2, 2))
    codes = roles.frozen['base']['layers']['mlp']['up'][base]['codes']
    assert codes.sharding.spec == sharding.P(None, 'fsdp', 'tensor')
    types = {str(x.dtype) for x in flat(roles.frozen['base']['embed']).values()}
    assert types == {'bfloat16'}

  def test_a_fresh_base_is_kept_beside_its_adapters(self, tmp_path):
    model = worlds.make_model().config
    config = make_config()
    names = ('vocab_size', 'width', 'depth', 'num_heads', 'num_kv_heads',
             'head_dim', 'mlp_width')  # fmt: skip
    config.model.update({name: getattr(model, name) for name in names})
    first = load(sft, config, tmp_path)
    again = load(sft, config, tmp_path)
    assert first.origin.base == str(tmp_path / 'base')
    assert_same(first.frozen, again.frozen)
    assert_same(first.trained, again.trained)

  def test_without_a_rank_nothing_is_shared(self, home):
    config = make_config(home / 'base', **{'lora.rank': 0})
    roles = load(dpo, config)
    assert roles.join is train.separate and roles.origin is None
    assert lora_roles.join_kw(roles) == {}
    assert lora.is_whole(roles.trained['policy'])


REFUSED = {
  'rule': (
    sft, 'base', {'lora.targets': 'q_proj'}, "'q_proj' matches no .*attn/q/ker"
  ),
  'rank': (dpo, 'wide', {}, 'adapters with lora.rank=3, which is not'),
  'targets': (
    dpo, 'sft', {'lora.targets': 'attn/q'}, 'differ in layers/attn/k/lora_a'
  ),
  'no head': (
    ppo, 'base', {'role_from.reward': 'sft'}, 'are of no reward model'
  ),
  'no adapter': (
    ppo, 'base', {'role_from.reward': 'reward', 'role_from.value': 'scores'},
    'trained roles share one base',
  ),
  'width': (sft, 'base', {'model.width': 32}, 'model.width is 32, but'),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_roles_that_cannot_be(home, name):
  algorithm, start, changes, match = REFUSED[name]
  named = lambda key, x: str(home / x) if key.startswith('role_from') else x
  changes = {key: named(key, x) for key, x in changes.items()}
  with pytest.raises(ValueError, match=match):
    load(algorithm, make_config(home / start, **changes))


BAD = {
  'rank': ({'lora.rank': -1}, r'lora.rank is -1; give at least 1'),
  'alpha': ({'lora.alpha': 0.0}, 'lora.alpha is 0.0'),
  'base': ({'lora.base': 'fp4'}, "'fp4'; it is one of float32, bfloat16, int8"),
  'regex': ({'lora.targets': '('}, 'no regular expression'),
  'off': ({'lora.rank': 0, 'lora.base': 'nf4'}, 'lora.base is nf4, but lora.r'),
  'dora': ({'lora.rank': 0, 'lora.dora': True}, 'lora.dora is True, but'),
}  # fmt: skip


@pytest.mark.parametrize('name', BAD)
def test_settings_that_cannot_be(name):
  changes, match = BAD[name]
  with pytest.raises(ValueError, match=match):
    checks.check_lora(make_config(**changes), sft)


def test_an_algorithm_that_takes_no_join():
  class alone:  # noqa: N801  In place of a module.
    __name__ = 'alone'

    @staticmethod
    def make_step(models, tx, *, beta=1.0):
      del models, tx, beta

  with pytest.raises(ValueError, match='alone.*make_step takes no join'):
    checks.check_lora(make_config(), alone)


class TestVerbs:
  def test_a_run_is_loaded_merged(self, home):
    model, params = models.load(home / 'sft')
    roles = load(sft, make_config(home / 'sft'))
    whole, _ = roles.join(roles.trained, roles.frozen)
    batch = worlds.text(2)
    logps = jax.jit(model.logps)
    np.testing.assert_allclose(
      logps(params, batch), logps(whole['policy'], batch), atol=1e-5
    )
    _, scores = models.load(home / 'reward')
    assert 'value_head' in scores and 'lm_head' not in scores

  def test_peft_and_back_keeps_every_bit(self, home, tmp_path, capsys):
    peft, ours = tmp_path / 'peft', tmp_path / 'ours'
    assert main(['export', f'--from={home / "sft"}', f'--to={peft}']) == 0
    assert 'adapters of rank 2' in capsys.readouterr().out
    names = {path.name for path in peft.iterdir()}
    assert names >= {
      'adapter_config.json', 'adapter_model.safetensors', 'tokenizer.json'
    }  # fmt: skip
    args = [f'--from={peft}', f'--to={ours}', f'--base={home / "base"}']
    assert main(['import', *args]) == 0
    assert_same(models.load_adapters(ours)[2], stored(home, 'sft', 'policy'))
    assert_same(models.load(ours)[1], models.load(home / 'sft')[1])
    # And it is something to start from.
    roles = load(dpo, make_config(ours))
    assert_same(roles.trained['policy'], stored(home, 'sft', 'policy'))

  def test_merged_it_is_a_model_like_any(self, home, tmp_path):
    to = tmp_path / 'hf'
    args = [f'--from={home / "sft"}', f'--to={to}', '--merge']
    assert main(['export', *args]) == 0
    assert not models.is_adapter(to)
    assert_same(models.load(to)[1], models.load(home / 'sft')[1])

  def test_a_reward_adapter_travels_with_its_head(self, home, tmp_path):
    peft = tmp_path / 'peft'
    assert main(['export', f'--from={home / "reward"}', f'--to={peft}']) == 0
    described = json.loads((peft / 'adapter_config.json').read_text())
    assert described['task_type'] == 'SEQ_CLS'
    assert described['modules_to_save'] == ['score']
    found = models.load_adapters(peft, base=home / 'base')[2]
    assert_same(found, stored(home, 'reward', 'reward'))

  def test_generate_from_a_run(self, home, capsys):
    args = [f'--model={home / "sft"}', '--prompt=copy : red box']
    assert main(['generate', *args, '--max_new_tokens=2']) == 0

  def test_merge_without_adapters(self, home, tmp_path, capsys):
    args = [f'--from={home / "base"}', f'--to={tmp_path / "x"}', '--merge']
    assert main(['export', *args]) == 1
    assert 'and no adapters' in capsys.readouterr().err

  def test_a_base_that_is_gone(self, home, tmp_path, capsys):
    peft = tmp_path / 'peft'
    assert main(['export', f'--from={home / "sft"}', f'--to={peft}']) == 0
    path = peft / 'adapter_config.json'
    described = json.loads(path.read_text())
    path.write_text(
      json.dumps(described | {'base_model_name_or_path': '/gone'})
    )
    assert main(['export', f'--from={peft}', f'--to={tmp_path / "x"}']) == 1
    error = capsys.readouterr().err
    assert '/gone does not exist' in error and '--base' in error
