"""Files of every kind, slices, mixtures, and files that cannot be read."""

import csv
import gzip
import json

import pytest

from alignax import data

ROWS = [{'instruction': f'ask {i}', 'output': f'answer {i}'} for i in range(10)]


def write_all(folder):
  lines = '\n'.join(map(json.dumps, ROWS))
  (folder / 'a.jsonl').write_text(lines)
  (folder / 'a.json').write_text(json.dumps(ROWS))
  (folder / 'b.json').write_text(json.dumps({'version': 1, 'data': ROWS}))
  with gzip.open(folder / 'a.jsonl.gz', 'wt') as file:
    file.write(lines)
  for name, delimiter in (('a.csv', ','), ('a.tsv', '\t')):
    with open(folder / name, 'w', newline='') as file:
      writer = csv.DictWriter(file, ROWS[0].keys(), delimiter=delimiter)
      writer.writeheader()
      writer.writerows(ROWS)
  import pyarrow
  import pyarrow.parquet

  table = pyarrow.Table.from_pylist(ROWS)
  pyarrow.parquet.write_table(table, folder / 'a.parquet')


def test_every_kind_of_file(tmp_path):
  write_all(tmp_path)
  files = sorted(tmp_path.iterdir())
  assert len(files) == 7
  for path in files:
    rows = data.load_rows(path)
    assert list(rows) == ROWS, path
    assert rows.sources[0].format == 'alpaca'
    assert rows.where(3) == f'{path.name}:4'


def write_csv(path, *lines):
  with open(path, 'w', newline='') as file:
    csv.writer(file).writerows(lines)
  return path


def test_a_csv_cell_may_hold_json(tmp_path):
  chat = [{'from': 'human', 'value': 'a'}]
  call = {'role': 'assistant', 'tool_calls': [{'name': 'add'}]}
  ours = {
    'messages': chat, 'chosen': chat, 'rejected': [call], 'output': call,
    'responses': ['a', 'b'], 'ranks': [2, 1],
  }  # fmt: skip
  path = write_csv(tmp_path / 'a.csv', ours, map(json.dumps, ours.values()))
  assert data.load_rows(path, format='messages')[0] == ours
  path = write_csv(tmp_path / 'b.csv', ['chat'], [json.dumps(chat)])
  rows = data.load_rows(path, columns=dict(messages='chat'))
  assert rows[0]['messages'] == chat


@pytest.mark.parametrize(
  'answer', ['[1, 2]', '{"a": 1}', '{"from": "EUR", "value": 3}', '[]', '7',
             '["role"]', '[' * 9999]
)  # fmt: skip
def test_an_answer_that_is_json_stays_text(tmp_path, answer):
  path = write_csv(
    tmp_path / 'a.csv', ['prompt', 'completion', 'answer'],
    ['ask', answer, answer],
  )  # fmt: skip
  want = {'prompt': 'ask', 'completion': answer, 'answer': answer}
  assert data.load_rows(path)[0] == want


@pytest.mark.parametrize('name, comma', [('a.csv', ','), ('a.tsv', '\t')])
def test_a_table_row_of_another_length_is_a_bad_one(tmp_path, name, comma):
  lines = ['prompt,completion', 'a,b', 'Hello, world,hi', '', 'c', 'd,e']
  path = tmp_path / name
  path.write_text('\n'.join(lines).replace(',', comma))
  rows = data.load_rows(path)
  assert list(rows)[::3] == [
    {'prompt': 'a', 'completion': 'b'}, {'prompt': 'd', 'completion': 'e'}
  ]  # fmt: skip
  for i, found in ((1, 3), (2, 1)):
    assert isinstance(rows[i], data.RowError)
    assert str(rows[i]).startswith(f'{name}:{i + 1}: ')
    assert f'{found} cells, expected 2' in str(rows[i])


def test_a_column_without_a_name_is_left_out(tmp_path):
  path = write_csv(tmp_path / 'a.csv', ['', 'text'], ['0', 'one'])
  assert list(data.load_rows(path)) == [{'text': 'one'}]


def test_a_text_file_is_one_document(tmp_path):
  (tmp_path / 'a.txt').write_text('one\n\ntwo\n')
  rows = data.load_rows(tmp_path / 'a.txt')
  assert list(rows) == [{'text': 'one\n\ntwo\n'}]


@pytest.mark.parametrize(
  'split, expected',
  [
    ('train', range(10)),
    ('[:3]', range(3)),
    ('train[-2:]', range(8, 10)),
    ('train[:90%]', range(9)),
    ('[90%:]', range(9, 10)),
  ],
)
def test_splits(write, split, expected):
  rows = data.load_rows(write(ROWS), split=split)
  assert list(rows) == [ROWS[i] for i in expected]
  assert rows.where(0) == f'rows.jsonl:{expected[0] + 1}'


def test_columns_are_renamed(write):
  path = write([{'question': 'a', 'answer': 'b', 'id': 1}])
  columns = dict(prompt='question', completion='answer')
  rows = data.load_rows(path, columns=columns)
  assert rows[0] == {'prompt': 'a', 'completion': 'b', 'id': 1}
  assert rows.sources[0].format == 'completion'


def test_mixtures_keep_where_rows_come_from(write):
  parts = [
    dict(path=write(ROWS[:3], 'a.jsonl'), weight=1),
    dict(path=write(ROWS[3:], 'b.jsonl'), weight=3, split='[:2]'),
  ]
  rows = data.load_rows(parts)
  assert list(rows) == ROWS[:5]
  assert rows.weights == [1, 3]
  assert [rows.where(i) for i in (2, 3)] == ['a.jsonl:3', 'b.jsonl:1']
  assert [rows.source(i) for i in range(5)] == [0, 0, 0, 1, 1]
  assert rows[-1] == ROWS[4] and rows[1:3] == ROWS[1:3]


def test_a_mixture_as_text(write):
  a, b = write(ROWS[:3], 'a.jsonl'), write(ROWS[3:], 'b.jsonl')
  rows = data.load_rows(f'{a}:3,{b}:0.5', split='[:2]')
  assert list(rows) == [*ROWS[:2], *ROWS[3:5]] and rows.weights == [3, 0.5]
  worlds = 'synthetic:prompts?n=7&seed=3'
  rows = data.load_rows(f'{worlds}:1,{a}:2', format='prompts')
  assert len(rows) == 10 and rows.weights == [1, 2]
  with pytest.raises(ValueError, match='some have none'):
    data.load_rows(f'{a}:3,{b}')
  with pytest.raises(ValueError, match='number above 0'):
    data.load_rows(f'{a}:3,{b}:0')


def test_a_path_may_look_like_a_mixture(tmp_path, write):
  folder = tmp_path / 'a:1,b:2'
  folder.mkdir()
  write(ROWS[:1], 'a:1,b:2/train.jsonl')
  assert list(data.load_rows(folder / 'train.jsonl')) == ROWS[:1]


def test_what_a_mixture_does_not_say_holds_for_all(write):
  columns = dict(instruction='question', output='answer')
  b = [{'question': 'a', 'answer': 'b'}, {'question': 'c', 'answer': 'd'}]
  parts = [
    dict(path=write(b, 'b.jsonl')),
    dict(path=write(ROWS[:3], 'a.jsonl'), columns=None, split='[:3]'),
  ]
  rows = data.load_rows(parts, columns=columns, split='[:1]')
  assert list(rows) == [dict(instruction='a', output='b'), *ROWS[:3]]


def test_synthetic_rows_by_name():
  rows = data.load_rows('synthetic:prompts?n=7&seed=3')
  assert len(rows) == 7 and rows.sources[0].format == 'prompts'
  assert list(rows) == list(data.load_rows('synthetic:prompts?n=7&seed=3'))
  assert list(rows) != list(data.load_rows('synthetic:prompts?n=7&seed=4'))
  part = data.load_rows('synthetic:prompts?n=7&seed=3', split='train[:2]')
  assert list(part) == rows[:2]


def test_a_folder_that_datasets_can_load(tmp_path):
  (tmp_path / 'train.jsonl').write_text(json.dumps(ROWS[0]) + '\n')
  assert list(data.load_rows(tmp_path)) == ROWS[:1]


CARD = """---
configs:
- config_name: main
  data_files: [{split: train, path: a.jsonl}, {split: test, path: b.jsonl}]
- config_name: other
  data_files: [{split: train, path: c.jsonl}]
---
"""


class TestAPathThatAsks:
  @pytest.fixture
  def folder(self, tmp_path):
    """A data set of two configurations, as the hub has them."""
    folder = tmp_path / 'set'
    folder.mkdir()
    for i, name in enumerate('abc'):
      (folder / f'{name}.jsonl').write_text(json.dumps(ROWS[i]) + '\n')
    (folder / 'README.md').write_text(CARD)
    return folder

  @pytest.mark.parametrize('query, row', [
    ('name=main', 0), ('name=main&split=test', 1), ('name=other', 2),
    ('split=test&name=main', 1),
  ])  # fmt: skip
  def test_for_a_configuration_and_a_split(self, folder, query, row):
    rows = data.load_rows(f'{folder}?{query}')
    assert list(rows) == [ROWS[row]] and rows.where(0) == f'{folder}:1'

  def test_in_a_mixture(self, folder, write):
    other = write(ROWS[5:])
    rows = data.load_rows(f'{folder}?name=main&split=test:3,{other}:1')
    assert list(rows) == [ROWS[1], *ROWS[5:]] and rows.weights == [3, 1]
    parts = [dict(path=f'{folder}?name=main&split=test'), dict(path=other)]
    rows = data.load_rows(parts, split='train[:1]')
    assert list(rows) == [ROWS[1], ROWS[5]]

  def test_for_a_part_of_a_file(self, write):
    rows = data.load_rows(f'{write(ROWS)}?split=[-3:]', split='[:2]')
    assert list(rows) == ROWS[-3:]

  def test_for_what_there_is_not(self, folder, write):
    with pytest.raises(ValueError, match=r'set\?name=CONFIG takes one of'):
      data.load_rows(folder)
    with pytest.raises(ValueError, match='a file has no configurations'):
      data.load_rows(f'{write(ROWS)}?name=main')
    with pytest.raises(ValueError, match="'splt' cannot be asked of a path"):
      data.load_rows(f'{folder}?splt=test')

  def test_or_has_a_question_mark_in_its_name(self, write):
    assert list(data.load_rows(write(ROWS, 'a?b=c.jsonl'))) == ROWS


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('a.jsonl', b'', 'no rows'),
    ('a.txt', b'  \n', 'no rows'),
    ('a.json', b'{"a": ', 'not JSON'),
    ('a.json', b'3', 'found int, expected a list'),
    ('a.parquet', b'PAR1', 'not a parquet file'),
    ('a.jsonl', b'\xff\xfe', 'UTF-8'),
    ('a.jsonl.gz', b'plain', 'cannot be read'),
    ('a.docx', b'x', "unknown kind of file '.docx'"),
  ],
)
def test_unreadable_files(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    data.load_rows(tmp_path / name)
  assert name in str(error.value)


def test_wrong_arguments(write, tmp_path, monkeypatch):
  with pytest.raises(FileNotFoundError, match='no such file'):
    data.load_rows(tmp_path / 'missing.jsonl')
  with pytest.raises(ValueError, match='no split of that name'):
    data.load_rows(write(ROWS), split='test')
  with pytest.raises(ValueError, match="format 'aplaca' is unknown"):
    data.load_rows(write(ROWS), format='aplaca')
  with pytest.raises(ValueError, match='some have none'):
    path = write(ROWS)
    data.load_rows([dict(path=path, weight=1), dict(path=path)])
  with pytest.raises(ValueError, match='number above 0'):
    data.load_rows([dict(path=path, weight=0)])
  with pytest.raises(ValueError, match='no sources'):
    data.load_rows([])
  monkeypatch.setenv('HF_HUB_OFFLINE', '1')
  with pytest.raises(ValueError, match='cannot load it'):
    data.load_rows(str(tmp_path / 'nobody' / 'nothing'))


def test_a_broken_line_is_a_bad_row_with_its_number(tmp_path):
  path = tmp_path / 'a.jsonl'
  good = json.dumps(ROWS[0])
  path.write_text(f'{good}\n\n{{"instruction": \n{good}\n')
  rows = data.load_rows(path)
  assert len(rows) == 3
  assert isinstance(rows[1], data.RowError)
  assert 'a.jsonl:3' in str(rows[1]) and 'JSON' in str(rows[1])
  assert rows.where(2) == 'a.jsonl:4'
