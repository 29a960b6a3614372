"""The verbs beside training, on a run of three steps."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from alignax import metrics, models
from alignax.cli import VERBS, configs, main
from alignax.cli import eval as eval_verb


def test_help_lists_all_verbs(capsys):
  assert main(['--help']) == 0
  out = capsys.readouterr().out
  assert all(verb in out for verb in VERBS)


def test_an_unknown_verb_is_named(capsys):
  assert main(['trian']) == 2
  assert "no verb 'trian'" in capsys.readouterr().err


def test_a_library_that_is_not_there_is_named(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'ml_collections', None)
  monkeypatch.delitem(sys.modules, 'alignax.cli.configs', raising=False)
  monkeypatch.delitem(sys.modules, 'alignax.cli.train', raising=False)
  monkeypatch.delattr('alignax.cli.configs', raising=False)
  assert main(['train', '--config=configs/sft.py', '--workdir=x']) == 1
  assert "'alignax[train]'" in capsys.readouterr().err


@pytest.mark.parametrize('verb', VERBS)
def test_every_verb_has_help(verb, capsys):
  with pytest.raises(SystemExit) as end:
    main([verb, '--help'])
  assert end.value.code == 0
  assert f'alignax {verb}' in capsys.readouterr().out


def test_generate_says_what_has_no_effect(capsys):
  assert main(['generate', '--model=x', '--prompt=y', '--top_p=0.5']) == 1
  assert 'nothing is drawn' in capsys.readouterr().err


def test_generate_prints_one_response(sft, capsys):
  workdir, _ = sft
  args = [f'--model={workdir}', '--prompt=copy : red box', '--max_new_tokens=5']
  assert main(['generate', *args]) == 0
  first = capsys.readouterr().out
  assert main(['generate', *args]) == 0
  assert capsys.readouterr().out == first  # Greedy.


def test_generate_writes_what_fits_by_default(sft, capsys):
  args = ['generate', f'--model={sft[0]}', '--prompt=copy : red box']
  assert main(args) == 0
  err = capsys.readouterr().err
  assert err.count('new tokens: the longest prompt has') == 1
  number = int(err.split('At most ')[1].split()[0])
  assert 0 < number < 64  # The max_length of its model.
  assert main([*args, f'--max_new_tokens={number}']) == 0
  assert 'At most' not in capsys.readouterr().err
  assert main([*args, f'--max_new_tokens={number + 1}']) == 1
  assert 'is more than max_length 64' in capsys.readouterr().err


def test_generate_names_the_prompt_that_leaves_no_room(sft, capsys):
  prompt = '--prompt=copy :' + 80 * ' box'
  assert main(['generate', f'--model={sft[0]}', prompt]) == 1
  err = capsys.readouterr().err
  assert 'At most' not in err and 'is more than max_length 64' in err


def test_generate_answers_rows_in_order_and_keeps_them(sft, tmp_path):
  workdir, _ = sft
  rows = [
    {'prompt': f'copy : red {"box " * i}', 'id': i} for i in (5, 1, 3)
  ] + [{'messages': [{'role': 'user', 'content': 'sort : 2 1'},
                     {'role': 'assistant', 'content': 'is 1 2'}]}]  # fmt: skip
  source, out = tmp_path / 'in.jsonl', tmp_path / 'deep' / 'out.jsonl'
  source.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  args = [
    f'--model={workdir}', f'--prompts={source}', f'--output={out}',
    '--max_new_tokens=4', '--temperature=1', '--seed=3', '--batch_size=2',
  ]  # fmt: skip
  assert main(['generate', *args]) == 0
  written = [json.loads(line) for line in out.read_text().splitlines()]
  assert [{**row, **given} for row, given in zip(written, rows)] == written
  assert all(isinstance(row['response'], str) for row in written)
  first = out.read_text()
  assert main(['generate', *args]) == 0
  assert out.read_text() == first  # The same seed.


def test_generate_says_which_row_is_bad(sft, tmp_path, capsys):
  workdir, _ = sft
  source = tmp_path / 'in.jsonl'
  source.write_text('{"prompt": "a"}\n{"prompt": 3}\n')
  args = [f'--model={workdir}', f'--prompts={source}', '--max_new_tokens=2']
  assert main(['generate', *args]) == 1
  assert 'in.jsonl:2' in capsys.readouterr().err


def test_generate_without_a_model(tmp_path, capsys):
  assert main(['generate', f'--model={tmp_path}/no', '--prompt=a']) == 1
  assert 'does not exist' in capsys.readouterr().err


def test_eval_agrees_with_the_run(sft, capsys):
  """Row by row and unpacked, the mean is that of the packed evaluation."""
  workdir, options = sft
  # As a kill in the middle of a save leaves it.
  (workdir / 'checkpoints' / '4.orbax-checkpoint-tmp').mkdir(exist_ok=True)
  assert main(['eval', *options, '--samples=8']) == 0
  assert 'heldout/loss' in capsys.readouterr().out
  found = json.loads((workdir / 'eval.json').read_text())
  assert found['step'] == 3
  last = [line for line in metrics.read(workdir) if 'heldout/loss' in line][-1]
  loss = found['metrics']['heldout/loss']
  assert loss['mean'] == pytest.approx(last['heldout/loss'], abs=1e-5)
  assert loss['low'] < loss['mean'] < loss['high']
  assert loss['n'] == 24
  assert found['metrics']['samples/finished']['n'] == 8


def test_eval_of_pairs_has_a_rate(dpo):
  workdir, options = dpo
  assert main(['eval', *options, '--samples=0']) == 0
  found = json.loads((workdir / 'eval.json').read_text())['metrics']
  (name,) = [k for k in found if k.endswith('accuracy')]
  last = [line for line in metrics.read(workdir) if name in line][-1]
  assert found[name]['mean'] == pytest.approx(last[name], abs=1e-5)
  assert 0 <= found[name]['low'] < found[name]['high'] <= 1


def test_eval_of_no_run(tmp_path, capsys):
  args = ['--config=configs/sft.py:size=tiny', f'--workdir={tmp_path}']
  assert main(['eval', *args]) == 1
  assert 'no directory of a run' in capsys.readouterr().err


def test_eval_finds_the_models_of_rewards_where_the_run_did(tmp_path):
  stored = {
    'algorithm': 'alignax.algorithms.ppo', 'init_from': 'a', 'role_from': {},
    'rewards': {'one': {'source': 'b'}, 'both': {'members': ['c', 'd']}},
  }  # fmt: skip
  (tmp_path / 'config.json').write_text(json.dumps(stored))
  config = configs.load('configs/ppo.py:size=tiny')
  config.rewards = dict(
    one=dict(kind='model', source='configs/reward.py:size=tiny'),
    both=dict(kind='model', members=('configs/reward.py', 'd')),
    short=dict(kind='length', max_length=8, cache=4),
  )
  eval_verb.adopt(config, tmp_path)
  assert config.rewards.one.source == 'b'
  assert config.rewards.both.members == ('c', 'd')


def test_eval_passes_over_what_a_kill_in_a_save_left(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  (tmp_path / 'checkpoints/40.orbax-checkpoint-tmp').mkdir(parents=True)
  with pytest.raises(FileNotFoundError, match='no checkpoint yet'):
    eval_verb.check(tmp_path)
  (tmp_path / 'checkpoints/20').mkdir()
  eval_verb.check(tmp_path)


def test_eval_with_the_config_of_another_algorithm(sft, capsys):
  args = ['--config=configs/dpo.py:size=tiny', f'--workdir={sft[0]}']
  assert main(['eval', *args]) == 1
  assert 'was trained by alignax.algorithms.sft' in capsys.readouterr().err


def test_eval_names_a_scorer_that_is_not_there(sft, capsys):
  assert main(['eval', *sft[1], '--config.evals.scorer=my_lab.score']) == 1
  err = capsys.readouterr().err
  assert "'my_lab.score' is not found" in err and 'pip install' not in err


def test_export_then_import_changes_no_bit(sft, tmp_path, capsys):
  workdir, _ = sft
  hf, native = tmp_path / 'hf', tmp_path / 'native'
  assert main(['export', f'--from={workdir}', f'--to={hf}']) == 0
  assert main(['import', f'--from={hf}', f'--to={native}']) == 0
  assert '2 layers' in capsys.readouterr().out
  assert (hf / 'tokenizer.json').exists()
  _, before = models.load(workdir)
  _, after = models.load(native)
  flat = lambda tree: sorted(models.convert.flatten(tree).items())
  for (name, x), (same, y) in zip(flat(before), flat(after), strict=True):
    assert name == same
    np.testing.assert_array_equal(x, y)
  args = [f'--model={native}', '--prompt=copy : red box', '--max_new_tokens=3']
  assert main(['generate', *args]) == 0


def test_export_over_what_is_no_model(sft, tmp_path, capsys):
  (tmp_path / 'thesis.txt').write_text('mine')
  assert main(['export', f'--from={sft[0]}', f'--to={tmp_path}']) == 1
  assert 'holds no model' in capsys.readouterr().err
  assert (tmp_path / 'thesis.txt').read_text() == 'mine'


def test_report_of_the_two(sft, dpo, tmp_path):
  path = tmp_path / 'page.html'
  assert main(['report', str(sft[0]), str(dpo[0]), f'--output={path}']) == 0
  assert 'Learning curves' in path.read_text()


def test_python_m_is_the_same():
  result = subprocess.run(
    [sys.executable, '-m', 'alignax.cli', '--help'],
    capture_output=True,
    text=True,
    env=os.environ | {'PYTHONWARNINGS': 'error'},
  )
  assert result.returncode == 0
  assert 'quickstart' in result.stdout
