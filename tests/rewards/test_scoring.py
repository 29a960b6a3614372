"""From a config to scores: what is refused, what is loaded, what a run logs."""

import contextlib
import json
import math
import pathlib
import sys

import jax
import numpy as np
import pytest
import tiny_worlds as worlds

from alignax import (
  data,
  metrics,
  reward_checks,
  rewards,
  role_params,
  run,
  scoring,
)
from alignax.algorithms import dpo, grpo, nash_md, ppo, reinforce_pp, remax
from alignax.data import synthetic
from alignax.evals import samples as samples_eval
from configs import common, rlvr
from configs import ppo as ppo_config

TOKENIZER = synthetic.make_tokenizer()
SMALL = dict(
  width=16, depth=1, num_heads=2, num_kv_heads=2, head_dim=8, mlp_width=16,
  remat='none', vocab_size=len(TOKENIZER), max_length=64,
)  # fmt: skip
LENGTH = dict(kind='length', max_length=8, cache=4)


def with_rewards(**given):
  config, _ = common.base()
  config.rewards = given
  return config


REFUSED = {
  'kind': (dict(kind='chekcer'), "kind is 'chekcer'; did you mean 'checker'"),
  'no kind': (dict(name='exact'), "kind is ''; known are checker, endpoint"),
  'key': (dict(kind='checker', name='exact', timout=1),
          "a.timout is unknown; did you mean 'timeout'"),
  'not its key': (LENGTH | dict(name='exact'), 'a.name is unknown'),
  'checker': (dict(kind='checker', name='exat'),
              "a: there is no checker 'exat'; did you mean 'exact'"),
  'no name': (dict(kind='checker'), 'a: name is missing; there are exact'),
  'module': (dict(kind='checker', name='no_lab.check'), 'No module named'),
  'function': (dict(kind='checker', name='own_checkers.wrods'),
               'did you mean own_checkers.words'),
  'argument': (dict(kind='checker', name='exact', kw=dict(feild='x')),
               "kw.feild is unknown; did you mean 'field'"),
  'timeout': (dict(kind='checker', name='exact', timeout=0.0), 'timeout is 0'),
  'clip': (LENGTH | dict(clip=-1.0), 'a.clip is -1.0; it is 0 or'),
  'length': (dict(kind='length', cache=4), 'needs max_length and cache'),
  'cache': (LENGTH | dict(cache=9), 'cache is 9 of a max_length of 8'),
  'penalty': (dict(kind='model', members=('a', 'b'), penalty='median'),
              "penalty is 'median'; it is one of"),
  'alone': (dict(kind='model', source='a', penalty='std'), 'of an ensemble'),
  'both': (dict(kind='model', source='a', members=('a', 'b')),
           'source and members: give one'),
  'members': (dict(kind='model', members='runs/one'), "members is 'runs/one';"),
  'template': (dict(kind='judge', template='{first}'), 'lacks {question}'),
  'no model': (dict(kind='endpoint', base_url='http://x'), 'model is missing'),
  'address': (dict(kind='endpoint', model='m', base_url='x'),
              "base_url is 'x'"),
  'judge template': (
    dict(kind='endpoint_judge', model='m', base_url='http://x',
         template='{first}'), 'lacks {question}'),
  'judge model': (dict(kind='endpoint_judge'), 'model is missing'),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_refused(name):
  reward, match = REFUSED[name]
  with pytest.raises(ValueError) as error:
    reward_checks.check(with_rewards(a=reward), ppo)
  assert match in str(error.value) and 'rewards.a' in str(error.value)


def test_a_package_that_is_missing_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'math_verify', None)
  config = with_rewards(a=dict(kind='checker', name='math'))
  with pytest.raises(ModuleNotFoundError, match=r"pip install 'alignax\[math"):
    reward_checks.check(config, ppo)


def test_algorithms_that_do_not_sample_take_none():
  config = with_rewards(a=LENGTH)
  config.algorithm = 'alignax.algorithms.dpo'
  with pytest.raises(ValueError, match='dpo takes none: it does not sample'):
    reward_checks.check(config, dpo)
  for algorithm in (ppo, grpo):
    reward_checks.check(config, algorithm)


NUMBER = dict(kind='checker', name='number')
JUDGE = dict(kind='judge', source='runs/lm')
ENDPOINT_JUDGE = dict(
  kind='endpoint_judge', model='m', base_url='http://127.0.0.1:9/v1'
)


@pytest.mark.parametrize('judge', [JUDGE, ENDPOINT_JUDGE], ids=['own', 'other'])
def test_a_judge_has_something_to_compare_with(judge):
  config = with_rewards(a=judge)
  for algorithm in (ppo, remax, reinforce_pp):
    with pytest.raises(ValueError, match='rewards.a compares the responses'):
      reward_checks.check(config, algorithm)
  reward_checks.check(config, grpo)
  config.algorithm_kw = dict(group=1)
  with pytest.raises(ValueError, match='set its baseline to a field'):
    reward_checks.check(config, grpo)
  config.algorithm_kw = dict(group=2)
  reward_checks.check(config, reinforce_pp)
  reward_checks.check(with_rewards(a=judge | dict(baseline='best')), ppo)


@pytest.mark.parametrize('judge', [JUDGE, ENDPOINT_JUDGE], ids=['own', 'other'])
def test_chances_to_win_are_taken_as_such(judge):
  config = with_rewards(a=judge, b=NUMBER | dict(weight=0.0))
  with pytest.raises(ValueError, match='set algorithm_kw.win_probs=True'):
    reward_checks.check(config, nash_md)
  config.algorithm_kw = dict(win_probs=True)
  reward_checks.check(config, nash_md)
  for more in dict(clip=0.1), dict(weight=2.0), dict(baseline='best'):
    config.rewards.a = judge | more
    with pytest.raises(ValueError, match='one judge of two responses'):
      reward_checks.check(config, nash_md)
  for given in dict(a=NUMBER), dict(a=judge, b=NUMBER), {}:
    config = with_rewards(**given)
    config.algorithm_kw = dict(win_probs=True)
    with pytest.raises(ValueError, match='one judge of two responses'):
      reward_checks.check(config, nash_md)


def test_what_is_standardised_apart_is_not_compared():
  config = with_rewards(a=NUMBER | dict(standardise=True))
  reward_checks.check(config, grpo)
  with pytest.raises(ValueError, match='compares samples with greedy'):
    reward_checks.check(config, remax)
  config.algorithm_kw = dict(rounds=2)
  with pytest.raises(ValueError, match='rewards.a.standardise is over one'):
    reward_checks.check(config, grpo)


def test_an_endpoint_judge_is_made():
  with loaded(a=ENDPOINT_JUDGE) as scorer:
    assert callable(scorer.arguments([])['score_fn']) and not scorer.single
  with loaded(a=ENDPOINT_JUDGE | dict(baseline='best')) as scorer:
    assert scorer.single == ('a',)


class TestVerifiedRewards:
  def config(self, arg):
    return rlvr.get_config(f'size=tiny,{arg}')

  def test_several_with_weights(self):
    config = self.config('reward=number+format:0.2')
    assert config.rewards.number.weight == 1
    assert config.rewards.format.weight == 0.2
    reward_checks.check(config, grpo)
    assert 'weight' not in self.config('reward=number').rewards.number

  def test_what_is_no_reward_or_weight(self):
    with pytest.raises(ValueError, match="did you mean 'format'"):
      self.config('reward=number+formt')
    with pytest.raises(ValueError, match='give a number'):
      self.config('reward=number:much')

  def test_variants_of_grpo(self):
    config = self.config('variant=dapo,loss=cispo')
    assert config.algorithm_kw.rounds == 3
    assert config.algorithm_kw.loss == 'cispo'
    with pytest.raises(ValueError, match="no argument 'variant'"):
      self.config('algorithm=ppo,variant=dapo')


def test_refused_before_anything_is_made(tmp_path, monkeypatch):
  monkeypatch.setattr('alignax.reading.load_tokenizer', None)
  config = ppo_config.get_config('size=tiny')
  config.rewards = {'a': dict(kind='checker', name='exact', timeout=-1.0)}
  with pytest.raises(ValueError, match='rewards.a: timeout is -1.0'):
    run.train(config, tmp_path)


def test_every_kind_has_its_check_and_its_maker():
  assert set(reward_checks.KINDS) == set(scoring.MAKERS)
  assert set(reward_checks.KINDS) == set(reward_checks.CHECKS)


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
  """Two reward models and a language model, as runs leave them."""
  from alignax import models

  home = tmp_path_factory.mktemp('stored')
  model = models.Model(models.Config(**SMALL))
  for i, name in enumerate(('one', 'two', 'lm')):
    params = worlds.make_params(model, i, value_head=name != 'lm')
    models.save(home / name, model, params, tokenizer=TOKENIZER)
  return home


@contextlib.contextmanager
def loaded(**given):
  config = with_rewards(**given)
  mesh = worlds.make_mesh()
  reward_checks.check(config, grpo)
  with contextlib.ExitStack() as stack:
    stack.enter_context(jax.set_mesh(mesh))
    yield scoring.load(config, mesh, TOKENIZER, stack)


def rollout(texts):
  """Rows of responses, each to a prompt of its own."""
  length = 8
  found = {
    'inputs': np.zeros((len(texts), length), np.int32),
    'mask': np.zeros((len(texts), length), bool),
    'row': np.arange(len(texts), dtype=np.int32),
  }
  for i, text in enumerate(texts):
    tokens = TOKENIZER(f'is {text}')['input_ids']
    found['inputs'][i, : len(tokens)] = tokens
    found['mask'][i, : len(tokens) - 1] = True
  inputs = found['inputs']
  return found | {
    'targets': np.roll(inputs, -1, axis=1),
    'segments': np.ones_like(inputs),
    'positions': np.tile(np.arange(length, dtype=np.int32), (len(texts), 1)),
    'lengths': found['mask'].sum(axis=1),
  }


@pytest.mark.slow
def test_rewards_of_every_kind_add_up(stored):
  given_rows = [{'prompt': 'is 1', 'answer': '1', 'other': '2'},
                {'prompt': 'is 2', 'answer': '3', 'other': '2'}]  # fmt: skip
  given = dict(
    one=dict(kind='model', source=str(stored / 'one')),
    both=dict(
      kind='model', members=(str(stored / 'one'), str(stored / 'two')),
      penalty='worst', weight=2.0,
    ),
    right=dict(
      kind='checker', name='exact', weight=3.0, workers=1,
      kw=dict(ignore_case=True),
    ),
    judge=dict(
      kind='judge', source=str(stored / 'lm'), baseline='other',
      template='{question} {first} {second}', labels=('yes', 'no'),
    ),
    short=LENGTH | dict(weight=0.5),
  )  # fmt: skip
  rows = rollout(['1', '2'])
  with loaded(**given) as scorer:
    assert set(scorer.frozen) == set(scorer.models) == {
      'reward_one_0', 'reward_both_0', 'reward_both_1', 'judge_judge',
    }  # fmt: skip
    assert 'value_head' in scorer.frozen['reward_both_1']
    assert 'value_head' not in scorer.frozen['judge_judge']
    scores, parts = scorer.score_fn(given_rows)(scorer.frozen, rows)
  single = {
    name: rewards.reward_model_scores(
      scorer.models[role], role=role)(scorer.frozen, rows)[0]
    for name, role in (('one', 'reward_one_0'), ('two', 'reward_both_1'))
  }  # fmt: skip
  np.testing.assert_allclose(parts['one'], single['one'], rtol=1e-5)
  worst = np.minimum(single['one'], single['two'])
  np.testing.assert_allclose(parts['both'], worst, rtol=1e-5)
  assert list(parts['right']) == [1, 0]
  assert 0 < parts['judge'][0] < 1
  assert parts['judge'][1] == pytest.approx(0.5, abs=1e-5)  # Against itself.
  weights = dict(one=1, both=2, right=3, judge=1, short=0.5)
  want = sum(w * np.asarray(parts[name]) for name, w in weights.items())
  np.testing.assert_allclose(scores, want, rtol=1e-5)


def test_held_out_rows_have_no_tournament(stored):
  judge = dict(
    kind='judge', source=str(stored / 'lm'), labels=('yes', 'no'),
    template='{question} {first} {second}',
  )  # fmt: skip
  with loaded(judge=judge, short=LENGTH) as scorer:
    _, parts = scorer.score_fn([], single=True)(scorer.frozen, rollout(['1']))
    assert set(parts) == {'short'}
    assert scorer.arguments([]).keys() == {'score_fn'}
  with loaded(judge=judge) as scorer:
    assert scorer.score_fn([], single=True) is None
  with loaded() as scorer:
    assert scorer.arguments([]) == {} and scorer.score_fn([]) is None


def test_on_held_out_rows_a_standardised_reward_is_as_it_was_given():
  # Else its mean over them would be 0, however good the policy gets.
  standard = dict(standardise=True, clip=0.1, weight=2.0)
  with loaded(a=LENGTH | standard, b=LENGTH | dict(clip=0.1)) as scorer:
    rows = rollout(['1', '1 2 3 4 5 6'])
    scores, parts = scorer.score_fn([], single=True)(scorer.frozen, rows)
    want = 2 * parts['a'] + np.clip(parts['b'], -0.1, 0.1)
    np.testing.assert_allclose(scores, want)
    assert parts['a'][1] < -0.1
    trained, _ = scorer.score_fn([])(scorer.frozen, rows)
    np.testing.assert_allclose(trained, [0.2, -0.3])


def test_a_reward_model_is_that_of_the_config_unless_it_says(stored):
  config = with_rewards(a=dict(kind='model'))
  config.role_from.reward = str(stored / 'two')
  mesh = worlds.make_mesh()
  with contextlib.ExitStack() as stack, jax.set_mesh(mesh):
    scorer = scoring.load(config, mesh, TOKENIZER, stack)
    _, want = role_params.load_role(
      config, 'reward', str(stored / 'two'), mesh
    )
  worlds.assert_trees_close(scorer.frozen['reward_a_0'], want)


def test_a_source_may_be_a_config_that_is_run_first(tmp_path, monkeypatch):
  first = []
  monkeypatch.setattr(
    run, 'train', lambda config, where, **_: first.append(where)
  )
  config = with_rewards(
    one=dict(kind='model', source='reward.py:seed=0'),
    both=dict(kind='model', members=('reward.py:seed=0', 'runs/rm')),
  )
  stage, _ = common.base()
  config = run.run_stages(config, tmp_path, lambda source: stage)
  source = pathlib.Path(config.rewards.one.source)
  assert set(first) == {source} and source.parent == tmp_path
  assert config.rewards.both.members == (config.rewards.one.source, 'runs/rm')


def small(config, steps):
  config.total_steps = steps
  config.init_from = ''
  config.model.update(SMALL)
  world = 'synthetic:prompts?n={}&seed=0&split={}'
  config.data.update(
    path=world.format(64, 'train'), heldout_path=world.format(8, 'heldout'),
    batch_size=8,
  )  # fmt: skip
  config.evals.update(samples=2)
  config.evals.sampling.max_new_tokens = 4
  config.algorithm_kw.update(max_new_tokens=4, minibatches=1)
  config.log.tensorboard = False
  return config


@pytest.mark.slow
def test_a_run_logs_each_reward_and_goes_on_where_one_fails(tmp_path):
  config = small(rlvr.get_config('size=tiny,algorithm=ppo'), 2)
  config.rewards.gold.workers = 1
  config.rewards.update(
    own=dict(kind='checker', name='own_checkers.often_faulty', workers=1),
    short=LENGTH | dict(weight=0.0),
  )
  run.train(config, tmp_path)
  rows = [row for row in metrics.read(tmp_path) if 'loss' in row]
  assert len(rows) == 2
  for row in rows:
    assert {'rewards/gold', 'rewards/gold/correct', 'rewards/short'} <= set(row)
    assert 0 < row['rewards/excluded'] < 8
    assert row['rewards/own/failed'] == row['rewards/excluded'] / 8
    assert row['rewards/own'] == 1.0  # Of those that it has a score for.
    assert math.isfinite(row['loss']) and row['skipped'] == 0
  measured = [r for r in metrics.read(tmp_path) if 'samples/reward' in r]
  assert [row['step'] for row in measured] == [0, 2]
  assert 'samples/rewards/gold' in measured[0]
  text = (tmp_path / 'samples.jsonl').read_text().splitlines()
  assert set(json.loads(text[0])['rewards']) >= {'gold', 'own', 'short'}


def test_a_sample_without_a_score_says_so_in_json():
  score_fn = rewards.weighted_sum({
    'a': rewards.Term(lambda *_: (np.array([1.0, math.nan]), {}))
  })  # fmt: skip
  samples = [{}, {}]
  examples = [data.Example((), (), row=i) for i in range(2)]
  means = samples_eval._add_rewards(
    score_fn, {}, {'lengths': np.ones(2)}, examples, samples
  )
  assert [x['reward'] for x in samples] == [1.0, None]
  assert samples[1]['rewards'] == {'a': None}
  assert means == {'rewards/a': 1, 'rewards/excluded': 1, 'reward': 1}


@pytest.mark.gold
def test_verified_rewards_raise_the_gold_score(tmp_path):
  """From a policy that only imitates; nothing but the checker is asked."""
  from alignax.cli import configs

  config = rlvr.get_config('size=tiny')
  config.total_steps = 100
  config.evals.samples = 64
  run.train(config, tmp_path, load_config=configs.load)
  name = 'samples/rewards/gold'
  gold = [row[name] for row in metrics.read(tmp_path) if name in row]
  assert len(gold) == 2 and gold[1] > gold[0]
