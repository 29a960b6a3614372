"""What runs read: mixtures by their weights, and starts on bad rows."""

import json

import pytest
from small_runs import load, losses, train

from alignax import run
from alignax.cli import configs


def rows_of(*names, n=40):
  return [
    {'instruction': f'{name} {i}', 'output': f'{name} is {i}'}
    for name in names
    for i in range(n)
  ]


def write_rows(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


@pytest.fixture
def found(monkeypatch):
  """What runs read, in order."""
  runs = []
  load_data = run.reading.load_data

  def kept(*args):
    runs.append(load_data(*args))
    return runs[-1]

  monkeypatch.setattr('alignax.reading.load_data', kept)
  return runs


class TestMixtures:
  def sources(self, found, steps):
    """How many rows of b and a are in the first batches."""
    text = ' '.join(found.batches.where(i, most=99) for i in range(steps))
    return text.count('b.jsonl:'), text.count('a.jsonl:')

  def mixture(self, folder):
    renamed = [
      {'question': row['instruction'], 'answer': row['output']}
      for row in rows_of('b')
    ]
    return dict(
      few=dict(
        path=write_rows(folder / 'b.jsonl', renamed),
        columns=dict(instruction='question', output='answer'),
        weight=1.0,
      ),
      many=dict(path=write_rows(folder / 'a.jsonl', rows_of('a')), weight=3.0),
    )

  @pytest.mark.slow
  def test_batches_meet_the_weights_and_a_run_goes_on(
    self, home, tmp_path, found
  ):
    given = {
      'data.path': '', 'data.heldout_path': '', 'data.heldout': 8,
      'data.mixture': self.mixture(tmp_path), 'data.batch_size': 16,
      'evals.samples': 0,  # The scorer knows the rows of its world only.
    }  # fmt: skip
    train(home, 'sft', tmp_path / 'run', total_steps=2, **given)
    assert len(losses(tmp_path / 'run')) == 2
    assert self.sources(found[0], 2) == (8, 24)
    held = found[0].heldout.rows
    assert [len(source.rows) for source in held.sources] == [4, 4]
    train(home, 'sft', tmp_path / 'run', total_steps=3, **given)
    assert len(losses(tmp_path / 'run')) == 3
    given['data.mixture']['many']['weight'] = 2.0
    with pytest.raises(ValueError, match='differs in data.mixture.many.weight'):
      train(home, 'sft', tmp_path / 'run', total_steps=3, **given)

  def test_a_weight_is_changed_on_the_command_line(self, home, tmp_path):
    text = (home / 'small_sft.py').read_text().replace(
      '  return config', f'  config.data.path = ""\n'
      f'  config.data.mixture = {self.mixture(tmp_path)!r}\n  return config'
    )  # fmt: skip
    (tmp_path / 'mixed.py').write_text(text)
    config = configs.load(
      str(tmp_path / 'mixed.py'), ['--config.data.mixture.many.weight=5']
    )
    assert config.data.mixture.many.weight == 5.0
    with pytest.raises(ValueError, match='did you mean .*data.mixture.'):
      configs.load(
        str(tmp_path / 'mixed.py'), ['--config.data.mixture.mny.weight=5']
      )

  @pytest.mark.slow
  def test_paths_with_weights_as_the_command_line_gives_them(
    self, home, tmp_path, found
  ):
    a, b = (
      write_rows(tmp_path / f'{name}.jsonl', rows_of(name)) for name in 'ab'
    )
    config = configs.load(
      str(home / 'small_sft.py'),
      [f'--config.data.path={a}:3,{b}:1', '--config.total_steps=2'],
    )
    run.train(config, tmp_path / 'run')
    assert self.sources(found[0], 2) == (4, 12)

  @pytest.mark.slow
  def test_columns_of_a_single_file(self, home, tmp_path, found):
    config = load(
      home, 'sft', total_steps=1, **{
        'data.path': self.mixture(tmp_path)['few']['path'],
        'data.heldout_path': '', 'data.heldout': 8, 'evals.samples': 0,
        'data.columns': dict(instruction='question', output='answer'),
      }
    )  # fmt: skip
    run.train(config, tmp_path / 'run')
    assert found[0].batches.rows[0]['instruction'] == 'b 0'


def test_without_rows_held_out_samples_answer_those_of_training(
  home, tmp_path
):
  path = write_rows(tmp_path / 'rows.jsonl', rows_of('a'))
  given = {
    'data.path': path, 'data.heldout_path': '', 'total_steps': 1,
    'evals.every': 0, 'evals.scorer': '',
  }  # fmt: skip
  train(home, 'sft', tmp_path / 'run', **given)
  text = (tmp_path / 'run' / 'samples.jsonl').read_text()
  samples = [json.loads(line) for line in text.splitlines()]
  assert [sample['step'] for sample in samples] == [0, 0, 1, 1]
  assert 'a 0' in samples[0]['prompt']


class TestBadStart:
  def test_the_corrected_command_may_use_the_same_workdir(
    self, home, tmp_path
  ):
    bad = write_rows(tmp_path / 'bad.jsonl', [{'text': 3}] * 20)
    with pytest.raises(ValueError, match='no example'):
      train(home, 'sft', tmp_path / 'run', **{'data.path': bad})
    rows = [*rows_of('a'), *[{'instruction': 3, 'output': 'b'}] * 20]
    good = write_rows(tmp_path / 'good.jsonl', rows)
    train(home, 'sft', tmp_path / 'run', total_steps=1, **{'data.path': good})
    config = json.loads((tmp_path / 'run' / 'config.json').read_text())
    assert config['data']['path'] == good
    with pytest.raises(ValueError, match='another config; it differs in '
                       'data.path'):  # fmt: skip
      train(home, 'sft', tmp_path / 'run', total_steps=1)

  def test_every_bad_row_is_named_in_the_directory_of_the_run(
    self, home, tmp_path, capsys
  ):
    rows = [*rows_of('a'), *[{'instruction': 3, 'output': 'b'}] * 20]
    path = write_rows(tmp_path / 'rows.jsonl', rows)
    train(home, 'sft', tmp_path / 'run', total_steps=1, **{'data.path': path})
    text = (tmp_path / 'run' / 'data.txt').read_text()
    assert all(f'rows.jsonl:{i}: ' in text for i in range(41, 61))
    printed = capsys.readouterr().out
    assert 'rows.jsonl:45' in printed and 'and 15 more' in printed
    assert 'rows.jsonl:46' not in printed
