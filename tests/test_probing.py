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
  run,
  sharding,
)
from alignax.cli import configs

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
    for key, value in changes.items():
      *path, last = key.split('.')
      section = config
      for part in path:
        section = section[part]
      section[last] = value
  return config


def measured(workdir, name: str) -> dict[int, float]:
  return {
    line['step']: line[name] for line in metrics.read(workdir) if name in line
  }


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
  kernels = lambda tree: np.concatenate([
    np.ravel(x[1]) for x in jax.tree.leaves(tree['layers'])
  ])  # fmt: skip
  change = np.linalg.norm(kernels(params) - kernels(start))
  expected = change / np.linalg.norm(kernels(start))
  found = measured(probed, 'probes/drift/layer_01')[4]
  assert found == pytest.approx(expected, rel=1e-4)
  assert found > 0.01


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
