"""From a sweep file to runs: what is the same is one, what differs is apart."""

import pathlib

import pytest

from alignax import sweeps
from alignax.cli import configs
from alignax.sweeps import plan, spec

DPO = 'small.py:dpo'
ROOT = pathlib.Path(__file__).parents[2]
JUDGED = """
from configs import ppo

def get_config(arg=None):
  config = ppo.get_config('size=tiny')
  config.role_from.reward = ''
  judge = dict(kind='model', source='configs/reward.py:size=tiny')
  config.rewards = {'judge': judge}
  return config
"""


def made(*entries):
  return plan.make_plan(entries, configs.load)


class TestHelpers:
  def test_a_grid_is_every_combination(self):
    base = sweeps.run(DPO, {'total_steps': 2})
    runs = sweeps.grid(base, {'algorithm_kw.beta': [0.1, 0.3], 'seed': [0, 1]})
    found = [r['overrides'] for r in runs]
    assert found == [
      {'total_steps': 2, 'algorithm_kw.beta': b, 'seed': s}
      for b in (0.1, 0.3)
      for s in (0, 1)
    ]
    assert runs[1]['name'] == 'small dpo total_steps=2 beta=0.1 seed=1'
    assert base['overrides'] == {'total_steps': 2}

  def test_zipped_values_go_together(self):
    values = {'algorithm_kw.beta': [0.1, 0.3], 'seed': range(2)}
    runs = sweeps.zipped(sweeps.run(DPO), values)
    assert [tuple(r['overrides'].values()) for r in runs] == [
      (0.1, 0),
      (0.3, 1),
    ]
    with pytest.raises(ValueError, match='beta has 1, seed has 2'):
      sweeps.zipped(sweeps.run(DPO), {'beta': [1], 'seed': [1, 2]})

  def test_seeds_share_their_stage_unless_told_otherwise(self):
    dpo = sweeps.run(DPO, after=sweeps.run('small.py:sft'))
    shared = sweeps.seeds(dpo, 3)
    assert [r['overrides']['seed'] for r in shared] == [0, 1, 2]
    assert all(r['after']['overrides'] == {} for r in shared)
    apart = sweeps.seeds(dpo, [5, 7], stages=True)
    stages = [r['after']['init_from']['overrides'] for r in apart]
    assert stages == [{'seed': 5}, {'seed': 7}]
    with pytest.raises(ValueError, match="'sft', a name"):
      sweeps.seeds(sweeps.run(DPO, after='sft'), 2, stages=True)

  def test_after_alone_is_where_it_starts(self):
    sft = sweeps.run('small.py:sft')
    assert spec.stages_of({'after': sft}) == {'init_from': sft}
    assert spec.stages_of({'after': 'sft'}) == {'init_from': 'sft'}
    assert spec.stages_of({'after': {'role_from.ref': sft}}) == {
      'role_from.ref': sft
    }


@pytest.mark.usefixtures('home')
class TestPlan:
  def test_a_run_is_its_resolved_config(self):
    """However it is written, called or ordered; any change is another run."""
    (a,) = made({'config': DPO})
    (b,) = made({'config': 'small.py', 'name': 'other', 'overrides': {
      'algorithm_kw.beta': 0.1, 'seed': 0}})  # fmt: skip
    assert a.id == b.id and a.id.startswith('dpo-')
    (c,) = made({'config': DPO, 'overrides': {'algorithm_kw.beta': 0.2}})
    assert c.id != a.id

  def test_two_of_one_config_are_named_and_one(self):
    (run,) = made(
      {'config': DPO, 'name': 'a'},
      {'config': DPO, 'name': 'b', 'overrides': {'seed': 0}},
      {'config': DPO, 'name': 'a'},
    )
    assert (run.name, run.also) == ('a', ('b',))

  def test_stages_come_first_and_are_shared(self):
    sft = sweeps.run('small.py:sft')
    dpo = sweeps.run(DPO, after=sft)
    runs = made(*sweeps.grid(dpo, {'algorithm_kw.beta': [0.1, 0.2]}))
    assert [r.id.split('-')[0] for r in runs] == ['sft', 'dpo', 'dpo']
    assert {r.after['init_from'] for r in runs[1:]} == {runs[0].id}
    (flag,) = [f for f in runs[1].arguments('out') if 'init_from' in f]
    assert flag.endswith(f'out/runs/{runs[0].id}')

  def test_a_config_to_start_from_is_a_stage_too(self):
    named = {'init_from': 'small.py:sft', 'role_from.reward': 'small.py:reward'}
    runs = made(
      {'config': DPO, 'overrides': named},
      {'config': DPO, 'overrides': {**named, 'seed': 1}},
    )
    kinds = [r.id.split('-')[0] for r in runs]
    assert kinds == ['sft', 'reward', 'dpo', 'dpo']
    # As if it had been said by `after`.
    stages = [sweeps.run(f'small.py:{name}') for name in ('sft', 'reward')]
    after = dict(zip(named, stages))
    assert made({'config': DPO, 'after': after})[-1].id == runs[2].id

  def test_a_model_whose_path_looks_like_a_config_is_no_stage(self):
    start = {'init_from': '/home/me/.pyenv/model'}
    (run,) = made({'config': DPO, 'overrides': start})
    assert run.after == {}

  def test_a_teacher_is_a_stage_that_seeds_share(self, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = made(*sweeps.seeds(sweeps.run('configs/distill.py:size=tiny'), 2))
    assert [r.id.split('-')[0] for r in runs] == ['sft', 'distill', 'distill']
    for run in runs[1:]:
      assert run.after == {'role_from.teacher': runs[0].id}

  @pytest.mark.parametrize('role', ['ref', 'value', 'reward'])
  def test_every_role_may_start_from_a_stage(self, role):
    overrides = {f'role_from.{role}': 'small.py:sft'}
    _, run = made({'config': DPO, 'overrides': overrides})
    assert list(run.after) == [f'role_from.{role}']

  def test_a_reward_is_a_stage_that_seeds_share(self, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / 'judged.py').write_text(JUDGED)
    run = sweeps.run(str(tmp_path / 'judged.py'))
    runs = made(*sweeps.seeds(run, 2))
    kinds = [r.id.split('-')[0] for r in runs]
    assert kinds == ['sft', 'reward', 'ppo', 'ppo']
    for run in runs[2:]:
      assert run.after['rewards.judge.source'] == runs[1].id

  def test_another_stage_is_another_run(self):
    ids = set()
    for seed in (0, 1):
      sft = sweeps.run('small.py:sft', {'seed': seed})
      ids.add(made(sweeps.run(DPO, after=sft))[-1].id)
    assert len(ids) == 2

  def test_stages_by_name(self):
    runs = made(
      {'config': DPO, 'name': 'b', 'after': 'a'},
      {'config': 'small.py:sft', 'name': 'a'},
    )
    assert [r.name for r in runs] == ['a', 'b']

  def test_runs_of_one_name_are_told_apart(self):
    runs = made(
      *({'config': DPO, 'name': 'x', 'overrides': {'seed': s}} for s in (0, 1))
    )
    assert [r.name for r in runs] == ['x seed=0', 'x seed=1']

  @pytest.mark.parametrize(
    'entries, message',
    [
      ([{'config': DPO, 'after': 'sfr'}, {'config': DPO, 'name': 'sft'}],
       "'sfr', no run of this sweep; did you mean 'sft'"),
      ([{'config': DPO, 'name': 'a', 'after': 'b'},
        {'config': 'small.py:sft', 'name': 'b', 'after': 'a'}],
       'wait for each other: a, b'),
      ([{'config': DPO, 'name': 'a', 'overrides': {'sead': 1}}],
       "Run 'a' of the sweep: --config.sead.*did you mean --config.seed"),
      ([{'config': DPO, 'overrides': {'seed': 'x'}}], 'seed'),
      ([{'config': 'none.py'}], 'There is no config none.py'),
      ([{'config': DPO, 'overides': {}}], "has 'overides'; known are"),
      ([{'overrides': {}}], 'a dict with at least config='),
      ([{'config': DPO, 'after': {'init_form': {'config': DPO}}}],
       'sets init_form, which its config does not have'),
    ],
  )  # fmt: skip
  def test_what_cannot_be_resolved_is_named(self, entries, message):
    with pytest.raises(ValueError, match=message):
      made(*entries)

  def test_a_plan_is_read_back_as_it_was(self, tmp_path):
    runs = made(sweeps.run(DPO, {'seed': 3}, after={'config': 'small.py:sft'}))
    plan.save(runs, tmp_path / 'out', 'sweep.py')
    assert plan.load(tmp_path / 'out') == runs
