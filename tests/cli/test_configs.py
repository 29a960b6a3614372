"""What a config's argument string may say, and what is said of a mistake."""

import pathlib

import pytest

from alignax import checks, run
from alignax.cli import configs, main
from alignax.sweeps import plan

WRONG = {
  'a name': ('sft.py:sze=tiny', "no argument 'sze'; did you mean 'size'? "),
  'a size': ('sft.py:size=tny', "size=tny is unknown; did you mean 'tiny'? "),
  'a number': ('dpo.py:beta=high', 'beta=high: give a number.'),
  'a whole number': ('grpo.py:group=1.5', 'group=1.5: give a whole number.'),
  'a switch': ('llama3_rounds.py:restart=no', 'restart=no is unknown; '),
  'a loss': ('dpo.py:loss=ipoo', "no loss 'ipoo' of chosen_logps"),
  'the nearest': ('dpo.py:loss=ipoo', "did you mean 'ipo'?"),
  'of other arrays': ('dpo.py:loss=simpo', "no loss 'simpo' of chosen_logps"),
  'unpaired': ('kto.py:loss=kot', "did you mean 'kto'?"),
  'online': ('online_dpo.py:loss=ipoo', "did you mean 'ipo'?"),
  'by the token': ('simpo.py:loss=simpoo', "did you mean 'simpo'?"),
  'of logits': ('distill.py:loss=forwardkl', "did you mean 'forward_kl'?"),
  'dotted': ('dpo.py:loss=alignax.losses.ipoo_loss',
             "no loss 'ipoo_loss' in alignax.losses; did you mean "
             'alignax.losses.ipo_loss?'),
  'no module': ('dpo.py:loss=my_lab.nope',
                "The loss 'my_lab.nope' is not found: No module named"),
  'no function': ('dpo.py:loss=alignax.losses', "no loss 'losses' in alignax"),
  'a reward': ('rlvr.py:reward=gld', "reward=gld is unknown; did you mean 'g"),
  'a variant': ('grpo.py:variant=dappo', "did you mean 'dapo'? There are grpo"),
  'a stage': ('quickstart.py:stage=pop', "did you mean 'ppo'?"),
  'no such size': ('quickstart.py:size=smollm2', 'size=smollm2 is unknown; '),
}  # fmt: skip


@pytest.mark.parametrize('name', WRONG)
def test_a_mistake_is_one_line_with_the_nearest_name(name, tmp_path, capsys):
  source, said = WRONG[name]
  source = f'configs/{source}'
  assert main(['train', f'--config={source}', f'--workdir={tmp_path}']) == 1
  err = capsys.readouterr().err
  assert err.startswith(f'alignax train: {source}: ') and said in err
  assert err.count('\n') == 1 and 'pip install' not in err


@pytest.mark.parametrize('verb', [
  ['train', '--config=configs/sft.py:size=tiny'],
  ['sweep', '--sweep=experiments/preference_losses/sweep.py'],
])  # fmt: skip
def test_a_workdir_is_no_address(verb, capsys):
  assert main([*verb, '--workdir=gs://bucket/run']) == 1
  assert 'workdir is gs://bucket/run, an address' in capsys.readouterr().err
  assert not pathlib.Path('gs:').exists()


def test_a_path_made_of_an_address_is_none_either():
  with pytest.raises(ValueError, match='an address'):
    checks.check_workdir(pathlib.Path('gs://bucket/run'))
  checks.check_workdir('runs/a:b')
  checks.check_workdir(pathlib.Path('/runs/gs:/x'))


def test_a_loss_is_looked_for_among_those_of_its_kind():
  with pytest.raises(ValueError) as found:
    configs.load('configs/dpo.py:loss=ipoo')
  assert 'bco_pair' in str(found.value)
  assert 'simpo' not in str(found.value) and 'kto' not in str(found.value)


def test_an_error_of_a_config_of_ones_own_says_its_kind(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('def get_config(arg=None):\n  return len(3)\n')
  with pytest.raises(ValueError, match=r'mine\.py: TypeError: object of') as e:
    configs.load(str(path))
  assert isinstance(e.value.__cause__, TypeError)  # --trace shows the line.


def test_an_override_of_another_type_is_still_refused():
  with pytest.raises(ValueError, match='total_steps'):
    configs.load('configs/sft.py', ['--config.total_steps=many'])


def test_quickstart_takes_the_one_size_that_it_has():
  stage = configs.load('configs/quickstart.py:size=tiny,stage=sft')
  assert stage == configs.load('configs/quickstart.py:stage=sft')


@pytest.mark.parametrize('value, means', [
  ('True', True), ('1', True), ('false', False), ('0', False),
])  # fmt: skip
def test_a_switch(value, means):
  config = configs.load(f'configs/llama3_rounds.py:restart={value}')
  assert config.algorithm_kw.restart is means


class TestAwayFromTheRepository:
  """Configs that are installed are there wherever a command is given."""

  @pytest.fixture(autouse=True)
  def elsewhere(self, tmp_path, monkeypatch, from_the_root):
    self.here = configs.load('configs/dpo.py:size=tiny,beta=0.3')
    monkeypatch.chdir(tmp_path)

  def test_a_config_is_the_installed_one(self):
    assert configs.load('configs/dpo.py:size=tiny,beta=0.3') == self.here

  def test_stages_are_too(self, tmp_path, monkeypatch):
    made = []
    train = lambda stage, *_, **__: made.append(stage)
    monkeypatch.setattr(run, 'train', train)
    source = self.here.init_from
    assert source == 'configs/sft.py:size=tiny'
    run.run_stages(self.here, tmp_path, configs.load)
    assert made == [configs.load(source)]

  def test_and_runs_of_sweeps(self):
    entry = {'config': 'configs/dpo.py:size=tiny'}
    sft, dpo = plan.make_plan([entry], configs.load)
    assert dpo.after == {'init_from': sft.id}

  def test_a_file_of_ones_own_comes_first(self, tmp_path):
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/dpo.py').write_text(
      'import ml_collections\n'
      'get_config = lambda: ml_collections.ConfigDict(dict(own=1))\n'
    )
    assert configs.load('configs/dpo.py').own == 1
    assert configs.load('configs/sft.py').algorithm.endswith('.sft')

  @pytest.mark.parametrize('path', ['configs/dpoo.py', 'dpo.py', 'configs', ''])
  def test_what_is_nowhere_is_named(self, path, capsys):
    assert main(['train', f'--config={path}', '--workdir=x']) == 1
    assert f'There is no config {path}, neither' in capsys.readouterr().err
