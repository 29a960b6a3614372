"""Probes and the monitor in runs: what is written, when, and how a run ends."""

import json

import jax
import numpy as np
import pytest
import tiny_worlds as tiny

from alignax import (
  checkpoint,
  complete,
  heldout,
  metrics,
  models,
  monitoring,
  run,
  sharding,
)
from alignax.cli import configs
from alignax.evals import probes

SIZES = dict(
  width=16, depth=2, num_heads=2, num_kv_heads=2, head_dim=8, mlp_width=16,
  remat='none',
)  # fmt: skip


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch, request):
  monkeypatch.chdir(request.config.rootpath)


def small(name: str, data: str, **changes):
  config = configs.load(f'configs/{name}.py:size=tiny')
  world = f'synthetic:{data}?n={{}}&seed=0&split={{}}'
  config.init_from, config.total_steps = '', 4
  config.model.update(SIZES)
  config.data.update(
    path=world.format(32, 'train'), heldout_path=world.format(8, 'heldout'),
    batch_size=8, packing=False,
  )  # fmt: skip
  config.optimizer.update(learning_rate=1e-2, warmup_steps=0)
  config.log.tensorboard = False
  config.evals.update(samples=0)
  config.evals.sampling.max_new_tokens = 4
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return config


def measured(workdir, name: str) -> dict[int, float]:
  return {
    line['step']: line[name] for line in metrics.read(workdir) if name in line
  }


def relative_change(params, start, layer: int) -> float:
  of_layer = lambda tree: np.concatenate([
    np.ravel(x[layer]) for x in jax.tree.leaves(tree['layers'])
  ])  # fmt: skip
  after, before = map(of_layer, (params, start))
  return np.linalg.norm(after - before) / np.linalg.norm(before)


@pytest.fixture(scope='module')
def probed(tmp_path_factory, request):
  workdir = tmp_path_factory.mktemp('runs') / 'dpo'
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(request.config.rootpath)
    config = small(
      'dpo', 'preferences',
      **{'evals.every': 2, 'evals.probes.every': 3, 'evals.probes.prompts': 4,
         'evals.probes.sycophancy': 3,
         'evals.probes.text': 'synthetic:text?n=8&seed=9'},
    )  # fmt: skip
    run.train(config, workdir, load_config=configs.load)
  return workdir


def test_probes_are_written_at_their_own_steps(probed):
  assert list(measured(probed, 'probes/kl_exact')) == [0, 3, 4]
  assert list(measured(probed, 'heldout/loss')) == [0, 2, 4]


def test_all_probes_are_there(probed):
  last = metrics.read(probed)[-1]
  names = {k.removeprefix('probes/') for k in last if k.startswith('probes/')}
  assert names >= {
    'drift/layer_00', 'drift/layer_01', 'drift/embed', 'drift/all',
    'kl_exact', 'kl_sampled', 'entropy', 'across/distinct_1',
    'length', 'refusals', 'text_loss', 'total', 'correct',
    'sycophancy/agrees', 'sycophancy/switches', 'sycophancy/correct',
  }  # fmt: skip


def test_what_was_asked_can_be_read(probed):
  text = (probed / 'samples.jsonl').read_text()
  samples = [json.loads(line) for line in text.splitlines()]
  assert [s['step'] for s in samples] == [0] * 4 + [3] * 4 + [4] * 4
  assert len({s['prompt'] for s in samples[:4]}) > 1
  assert all(0 <= s['scores']['total'] <= 1 for s in samples)
  assert all(1 <= s['tokens'] <= 4 for s in samples)


def test_nothing_has_moved_before_the_first_step(probed):
  first = metrics.read(probed)[0]
  moved = {k: v for k, v in first.items() if '/drift/' in k or '/kl_' in k}
  assert len(moved) >= 7
  assert all(abs(v) < 1e-6 for v in moved.values())


def test_drift_is_that_of_the_checkpoint(probed):
  """Against a fresh model of the same seed, which is where it started."""
  model, params = models.load(probed)
  key = jax.random.fold_in(jax.random.key(0), 0)  # As `assemble` draws it.
  start = model.init(key)
  found = measured(probed, 'probes/drift/layer_01')[4]
  expected = relative_change(params, start, 1)
  assert found == pytest.approx(expected, rel=1e-4)
  assert found > 0.01


def test_without_a_reward_there_is_none_beside_the_gold_score(probed):
  """DPO learns from none: a gold score by that name would be another thing."""
  for line in metrics.read(probed):
    assert 'probes/reward' not in line
    assert 'probes/length_reward_correlation' not in line
  gold = measured(probed, 'probes/total')
  assert list(gold) == [0, 3, 4]


def test_a_monitor_of_dpo_is_told_that_it_has_no_reward(probed, tmp_path):
  config = small('dpo', 'preferences')
  config.monitor.update(proxy='probes/reward', judge='probes/total')
  watch = monitoring.Watch(config, tmp_path, 0)
  with pytest.raises(ValueError, match="'probes/reward', which is not meas"):
    watch.add(0, metrics.read(probed)[0])


@pytest.fixture(scope='module')
def judges(tmp_path_factory, request):
  """Two reward models that disagree."""
  home = tmp_path_factory.mktemp('judges')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(request.config.rootpath)
    for seed, name in enumerate(('one', 'other')):
      config = small('reward', 'preferences', seed=seed, total_steps=2)
      run.train(config, home / name)
  return home


@pytest.fixture
def drawn(monkeypatch):
  """The rows of responses that probes drew, evaluation by evaluation."""
  kept, texts_of = [], probes.texts_of

  def keep(rows, tokenizer):
    kept.append(rows)
    return texts_of(rows, tokenizer)

  monkeypatch.setattr(probes, 'texts_of', keep)
  return kept


def mean_scores(path, drawn) -> list[float]:
  """What a stored reward model makes of drawn responses."""
  model, params = models.load(path)
  score = jax.jit(model.scores)
  given = [{k: rows[k] for k in probes.TOKENS} for rows in drawn]
  return [float(np.mean(score(params, rows)[..., 0])) for rows in given]


def small_ppo(judges, **changes):
  changes = {
    'total_steps': 1, 'role_from.reward': str(judges / 'one'),
    'algorithm_kw.max_new_tokens': 4, 'evals.probes.every': 1,
    'evals.probes.prompts': 4, **changes,
  }  # fmt: skip
  return small('ppo', 'prompts', **changes)


@pytest.mark.slow
def test_the_reward_is_that_of_the_model_it_learns_from(
  judges, drawn, tmp_path
):
  run.train(small_ppo(judges), tmp_path)
  found = list(measured(tmp_path, 'probes/reward').values())
  assert len(found) == 2
  assert found == pytest.approx(mean_scores(judges / 'one', drawn), rel=1e-4)


@pytest.mark.slow
def test_a_second_reward_model_is_the_judge(judges, drawn, tmp_path):
  """With a weight of 0 it is measured, and nothing is learned from it."""
  config = small_ppo(
    judges,
    **{'monitor.proxy': 'probes/rewards/proxy',
       'monitor.judge': 'probes/rewards/judge',
       'evals.every': 1, 'evals.samples': 2},
  )  # fmt: skip
  config.rewards = dict(
    proxy=dict(kind='model', weight=2.0),
    judge=dict(kind='model', source=str(judges / 'other'), weight=0.0),
  )
  run.train(config, tmp_path)
  of = lambda name: list(measured(tmp_path, f'probes/{name}').values())
  one, other = (mean_scores(judges / name, drawn) for name in ('one', 'other'))
  np.testing.assert_allclose(of('rewards/proxy'), one, rtol=1e-4)
  np.testing.assert_allclose(of('rewards/judge'), other, rtol=1e-4)
  np.testing.assert_allclose(of('reward'), 2 * np.array(one), rtol=1e-4)
  assert not np.allclose(one, other, rtol=0.01)
  best = measured(tmp_path, 'monitor/best_step')
  assert best[1] == int(np.argmax(other))
  # Of greedy samples, the same two go by these names.
  assert {'samples/rewards/proxy', 'samples/rewards/judge'} <= set(
    metrics.read(tmp_path)[0]
  )


@pytest.mark.slow
def test_drift_of_adapters_is_that_of_merged_weights(tmp_path):
  config = small(
    'sft', 'demonstrations',
    **{'lora.rank': 2, 'evals.probes.every': 4, 'evals.probes.prompts': 0},
  )  # fmt: skip
  run.train(config, tmp_path)
  (_, after), (_, start) = map(models.load, (tmp_path, tmp_path / 'base'))
  for layer in (0, 1):
    name = f'probes/drift/layer_{layer:02}'
    assert measured(tmp_path, name)[0] == pytest.approx(0, abs=1e-6)
    assert measured(tmp_path, name)[4] == pytest.approx(
      relative_change(after, start, layer), rel=1e-3
    )
    assert measured(tmp_path, name)[4] > 1e-4
  # No adapter is on the embedding.
  assert measured(tmp_path, 'probes/drift/embed')[4] == 0


def test_of_a_reward_model_drift_is_measured_and_it_is_said(tmp_path, capsys):
  config = small(
    'reward', 'preferences', **{'total_steps': 1, 'evals.probes.every': 1}
  )
  run.train(config, tmp_path)
  found = {k for k in metrics.read(tmp_path)[-1] if k.startswith('probes/')}
  assert found and all(k.startswith('probes/drift/') for k in found)
  out = capsys.readouterr().out
  assert "of the role 'reward', drift alone is measured" in out


@pytest.mark.parametrize(
  'name, data, changes, message',
  [
    ('reward', 'preferences', {'evals.probes.text': 'x'}, 'probes.text is'),
    ('reward', 'preferences', {'evals.probes.sycophancy': 3},
     'probes.sycophancy is 3, which is asked of a policy'),
    ('sft', 'demonstrations', {'data.heldout_path': ''},
     'probes.prompts is 64, and no rows are held out'),
  ],
)  # fmt: skip
def test_probes_that_cannot_be_made_are_refused(
  name, data, changes, message, tmp_path
):
  config = small(name, data, **{'evals.probes.every': 1, **changes})
  with pytest.raises(ValueError, match=message):
    run.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()  # Before anything is loaded.


def test_kl_and_entropy_are_possible(probed):
  kl = measured(probed, 'probes/kl_exact')
  assert kl[4] > 1e-4
  tokenizer = json.loads((probed / 'tokenizer.json').read_text())
  vocabulary = len(tokenizer['model']['vocab'])
  entropy = measured(probed, 'probes/entropy')
  assert all(0 < e <= np.log(vocabulary) + 1e-3 for e in entropy.values())
  # Of a fresh model, raw text costs about as much as drawing at random.
  assert measured(probed, 'probes/text_loss')[0] == pytest.approx(
    np.log(vocabulary), rel=0.1
  )


@pytest.mark.slow
def test_a_resumed_run_compares_with_the_same_start(probed):
  """Not with where it went on."""
  before = measured(probed, 'probes/drift/all')
  config = small(
    'dpo', 'preferences',
    **{'total_steps': 5, 'evals.probes.every': 5, 'evals.probes.prompts': 0},
  )  # fmt: skip
  # A schedule of five steps instead of four is of no account here.
  run.train(config, probed, load_config=configs.load)
  after = measured(probed, 'probes/drift/all')
  assert after[5] > 0.5 * before[4]


JUDGE = {0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3, 4: 0.25, 5: 0.2, 6: 0.15, 7: 0.1,
         8: 0.05, 9: 0.0, 10: -0.05, 11: -0.1, 12: -0.15}  # fmt: skip
WATCHED = {
  'total_steps': 12, 'evals.every': 1, 'monitor.proxy': 'proxy',
  'monitor.judge': 'judge', 'monitor.window': 4,
}  # fmt: skip


@pytest.fixture
def scripted(monkeypatch):
  """Evaluations that rise and fall as a script says; on one device."""
  monkeypatch.setattr(sharding, 'make_mesh', lambda **_: tiny.make_mesh())
  monkeypatch.setattr(
    heldout, 'make_evaluation',
    lambda *_: lambda step, params, frozen: {
      'proxy': step / 10 + 1e-3 * (step % 2),
      'judge': JUDGE[step] + 1e-3 * (step % 2),
      'embedding': float(params['policy']['embed']['embedding'][3, 3]),
    },
  )  # fmt: skip


def test_a_hacked_run_ends_at_its_best(scripted, tmp_path, capsys):
  config = small('sft', 'demonstrations', **WATCHED, **{'monitor.stop': True})
  run.train(config, tmp_path)
  warnings = measured(tmp_path, 'monitor/warning')
  last = max(warnings)
  assert 6 <= last < 12  # Not before it can be known, nor at the very end.
  assert [step for step, w in warnings.items() if w] == [last]
  assert checkpoint.latest_step(tmp_path / 'checkpoints') == 3
  assert complete.ended(tmp_path)['step'] == 3
  assert complete.is_complete(tmp_path, 12)
  out = capsys.readouterr().out
  assert 'proxy keeps rising' in out and 'highest at step 3' in out
  # What is left is the model as it was at that step.
  _, params = models.load(tmp_path)
  assert float(params['embed']['embedding'][3, 3]) == pytest.approx(
    measured(tmp_path, 'embedding')[3], rel=1e-6
  )
  before = (tmp_path / 'metrics.jsonl').read_text()
  run.train(config, tmp_path)
  assert (tmp_path / 'metrics.jsonl').read_text() == before
  assert 'ended at step 3' in capsys.readouterr().out


@pytest.mark.slow
def test_of_equals_it_goes_back_to_the_first(scripted, tmp_path, monkeypatch):
  # Saved at every step as well: 4 is as good as 3 and comes later.
  monkeypatch.setitem(JUDGE, 4, JUDGE[3] + 1e-3)
  config = small(
    'sft', 'demonstrations', **WATCHED,
    **{'monitor.stop': True, 'checkpoint.every': 1, 'checkpoint.keep_best': 2},
  )  # fmt: skip
  run.train(config, tmp_path)
  assert complete.ended(tmp_path)['step'] == 3
  assert checkpoint.latest_step(tmp_path / 'checkpoints') == 3


def test_without_stop_it_only_warns(scripted, tmp_path, capsys):
  run.train(small('sft', 'demonstrations', **WATCHED), tmp_path)
  warnings = measured(tmp_path, 'monitor/warning')
  assert max(warnings) == 12 and sum(warnings.values()) > 1
  assert capsys.readouterr().out.count('reward hacking?') == 1
  assert not complete.ended(tmp_path)


@pytest.mark.slow
def test_a_resumed_run_warns_when_an_uninterrupted_one_does(
  scripted, tmp_path, capsys, monkeypatch
):
  """Killed before the warning, and once more after it."""
  config = small('sft', 'demonstrations', **WATCHED, **{'checkpoint.every': 2})
  run.train(config, tmp_path / 'whole')
  assert capsys.readouterr().out.count('reward hacking?') == 1
  expected = measured(tmp_path / 'whole', 'monitor/warning')
  first = min(step for step, warned in expected.items() if warned)
  for step in (first - 1, first + 2):
    with monkeypatch.context() as patch:
      patch.delitem(JUDGE, step)
      with pytest.raises(KeyError):
        run.train(config, tmp_path / 'killed')
  run.train(config, tmp_path / 'killed')
  assert capsys.readouterr().out.count('reward hacking?') == 1
  for name in ('warning', 'best_step', 'judge_slope'):
    whole, killed = (
      measured(tmp_path / path, f'monitor/{name}')
      for path in ('whole', 'killed')
    )
    assert killed == whole


def test_a_first_evaluation_that_is_not_finite_is_no_best(
  scripted, tmp_path, capsys, monkeypatch
):
  """It warns as it does without, two of them being counted."""
  monkeypatch.setitem(JUDGE, 0, float('nan'))
  monkeypatch.setitem(JUDGE, 8, float('inf'))
  config = small('sft', 'demonstrations', **WATCHED, **{'monitor.stop': True})
  run.train(config, tmp_path)
  best = measured(tmp_path, 'monitor/best_step')
  assert best[1] == 1 and 0 not in best and 8 not in best
  left_out = measured(tmp_path, 'monitor/left_out')
  assert left_out[0] == left_out[1] == 1
  assert complete.ended(tmp_path)['step'] == 3
  assert checkpoint.latest_step(tmp_path / 'checkpoints') == 3
  assert capsys.readouterr().out.count('leaves out an evaluation') == 1


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'monitor.proxy': 'a'}, 'give both'),
    ({'monitor.stop': True}, 'monitor.stop needs'),
    ({**WATCHED, 'monitor.window': 3}, 'at least 4'),
    ({**WATCHED, 'monitor.stop': True, 'checkpoint.keep_best': 1,
      'checkpoint.best_metric': 'proxy'}, 'best_metric'),
    ({**WATCHED, 'monitor.proxy': 'heldout/loss',
      'monitor.judge': 'heldout/los'},
     "which is not measured; did you mean 'heldout/loss'"),
    ({'evals.probes.evry': 1}, 'evals.probes.evry is unknown; did you mean'),
  ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    run.train(small('sft', 'demonstrations', **changes), tmp_path)
