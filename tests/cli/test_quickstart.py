"""The quickstart: its stages, the whole of it cut short, and what it shows."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from alignax import run
from alignax.cli import configs, main, quickstart

ROOT = pathlib.Path(__file__).parents[2]
COLUMNS = {
  'model', 'answered', 'gold score', 'win rate against SFT', 'KL to SFT',
  'tokens', 'seconds',
}  # fmt: skip


class TestStages:
  """What is trained, and what is taken from an earlier try."""

  @pytest.fixture(autouse=True)
  def trained(self, monkeypatch):
    """Names of the folders that stages were trained in, which took 12.4 s."""
    made = []

    def train(config, where, *, load_config):
      made.append(where.name)
      (where / 'checkpoints' / str(config.total_steps)).mkdir(parents=True)
      line = {'step': config.total_steps, 'seconds': 12.4}
      (where / 'metrics.jsonl').write_text(json.dumps(line) + '\n')

    monkeypatch.setattr(run, 'train', train)
    return made

  @pytest.fixture
  def change(self, monkeypatch):
    """Changes a stage, as an edit of its config does."""

    def change(stage, **values):
      load = configs.load

      def changed(source, *args):
        config = load(source, *args)
        if f'stage={stage},' in source:
          config.optimizer.update(values)
        return config

      monkeypatch.setattr(configs, 'load', changed)

    return change

  def two(self, workdir):
    base = quickstart.run_stage(workdir, 'pretrain', 0)
    return base, quickstart.run_stage(workdir, 'sft', 0, init_from=base)

  def test_are_trained_once(self, trained, tmp_path, capsys):
    assert self.two(tmp_path) == self.two(tmp_path)
    assert len(trained) == 2
    out = capsys.readouterr().out
    assert out.count('done before, in') == 2 and 'anew' not in out

  def test_of_another_config_are_others(
    self, trained, change, tmp_path, capsys
  ):
    base, first = self.two(tmp_path)
    change('sft', learning_rate=0.5)
    same, second = self.two(tmp_path)
    assert same == base and second != first
    assert trained == [pathlib.Path(p).name for p in (base, first, second)]
    said = f'sft: another config than that of {pathlib.Path(first).name}'
    assert said in capsys.readouterr().out

  def test_from_another_start_are_others(self, trained, change, tmp_path):
    _, first = self.two(tmp_path)
    change('pretrain', learning_rate=0.5)
    _, second = self.two(tmp_path)
    assert second != first and len(trained) == 4

  def test_are_known_in_a_workdir_that_was_moved(self, trained, tmp_path):
    self.two(tmp_path / 'here')
    (tmp_path / 'here').rename(tmp_path / 'there')
    self.two(tmp_path / 'there')
    assert len(trained) == 2

  def test_take_what_their_metrics_say(self, tmp_path):
    runs = self.two(tmp_path)
    assert quickstart.seconds(runs) == 25
    (pathlib.Path(runs[1]) / 'metrics.jsonl').unlink()
    assert quickstart.seconds(runs) is None
    assert quickstart._cell(quickstart.seconds(runs)) == '-'


def cut(load):
  """`load` of stages so short and small that nothing is learned."""

  def cut(source, *args):
    config = load(source, *args)
    d = config.data
    config.total_steps = 3
    d.batch_size, d.heldout = 8, min(d.heldout, 16)
    d.path = re.sub(r'n=\d+', 'n=96', d.path)
    d.heldout_path = re.sub(r'n=\d+', 'n=16', d.heldout_path)
    if 'width' in config.model:
      config.model.update(
        width=16, depth=1, num_heads=2, num_kv_heads=2, head_dim=8,
        mlp_width=16,
      )  # fmt: skip
    return config

  return cut


@pytest.mark.slow
def test_every_model_is_in_the_table_and_on_the_page(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(configs, 'load', cut(configs.load))
  monkeypatch.setattr(quickstart, 'PAIRS', 96)
  command = ['quickstart', f'--workdir={tmp_path}', '--prompts=16', '--seed=1']
  assert main(command) == 0
  workdir = tmp_path / 'seed1'
  result = json.loads((workdir / 'result.json').read_text())
  assert list(result) == ['base', 'SFT', 'DPO', 'PPO']
  for model, row in result.items():
    assert row.keys() == COLUMNS and row['model'] == model
    empty = {'win rate against SFT'} if model == 'SFT' else set()
    assert {name for name in row if row[name] is None} == empty
    assert row['seconds'] > 0 and row['answered'][3] == 16
  page = (workdir / 'report.html').read_text('utf-8')
  samples = page.split('<article class="sample">')[1:]
  assert len(samples) == 16
  for sample in samples:
    assert re.findall(r'<h4>(\w+)', sample) == list(result)
  header, *rows = capsys.readouterr().out.split('\n\n')[-2].splitlines()
  assert set(re.split(r'  +', header)) == COLUMNS
  assert [row.split()[0] for row in rows] == list(result)

  # Nothing is trained again, and the models took as long as they took.
  monkeypatch.setattr(run, 'train', None)
  assert main(command) == 0
  assert json.loads((workdir / 'result.json').read_text()) == result


@pytest.mark.gold
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_every_stage_does_what_it_is_for(seed, tmp_path):
  """In a process of its own, on the devices that there are."""
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  command = [sys.executable, '-m', 'alignax.cli', 'quickstart']
  command += [f'--workdir={tmp_path}', f'--seed={seed}']
  subprocess.run(command, check=True, cwd=ROOT, env=env)
  check(json.loads((tmp_path / f'seed{seed}' / 'result.json').read_text()))


def check(result):
  """Asserts that the base answers little, SFT much, DPO and PPO better."""
  answered = {model: row['answered'][0] for model, row in result.items()}
  assert answered['base'] < 0.1 and answered['SFT'] > 0.6
  for model in ('DPO', 'PPO'):
    mean, low, high, _ = result[model]['win rate against SFT']
    assert 0.5 < low < mean < high
