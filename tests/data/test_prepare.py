"""What becomes of rows that are cut, empty, broken, alike or too long."""

import json

import numpy as np
import pytest

from alignax import data


def pair(prompt='Hello there', chosen='Red.', rejected='Blue.'):
  return {'prompt': prompt, 'chosen': chosen, 'rejected': rejected}


def ask(user='Hello there', assistant='It is four.'):
  return {'prompt': user, 'completion': assistant}


def test_a_cut_response_gets_no_end(qwen):
  [whole], _ = data.prepare([ask()], qwen, kind='text', length=200)
  n = len(whole.tokens[0])
  for length in (n, n - 1, n - 2, n - 3):
    examples, report = data.prepare([ask()], qwen, kind='text', length=length)
    tokens, mask = examples[0].tokens[0], examples[0].learned[0]
    np.testing.assert_array_equal(tokens, whole.tokens[0][:length])
    np.testing.assert_array_equal(mask, whole.learned[0][:length])
    # The newline behind the end token goes first, then the end token.
    assert (qwen.eos_token_id in tokens[mask]) == (length >= n - 1)
    assert report.counts['cut'] == (length < n)


def test_candidates_keep_the_same_prompt_when_cut(qwen):
  long = pair(chosen='Red. ' * 60, rejected='Blue. ' * 50)
  [example], report = data.prepare([long], qwen, kind='pairs', length=60)
  first = [np.flatnonzero(mask)[0] for mask in example.learned]
  assert first[0] == first[1] and example.length == 60
  chosen, rejected = example.tokens
  np.testing.assert_array_equal(chosen[: first[0]], rejected[: first[0]])
  assert report.counts['cut'] == 1


def test_rows_without_a_target(qwen, write):
  rows = [
    ask(),
    ask(user='Hello ' * 200),
    {'messages': [{'role': 'user', 'content': 'a'}]},
  ]
  path = write(rows[:2])
  examples, report = data.prepare(
    data.load_rows(path), qwen, kind='text', length=100
  )
  assert len(examples) == 1 and report.counts['no_target'] == 1
  assert report.named['no_target'][0].startswith('rows.jsonl:2: ')
  assert 'starts within 100 tokens' in report.table()
  with pytest.raises(data.RowError, match='rows.jsonl:2.*starts within 100'):
    data.prepare(
      data.load_rows(path), qwen, kind='text', length=100, on_bad_row='raise'
    )
  with pytest.raises(data.RowError, match='rows:1.*an assistant turn to learn'):
    data.prepare(rows[2:], qwen, kind='text', length=100, on_bad_row='raise')


def test_pairs_that_a_cut_makes_alike_have_no_target(qwen):
  rows = [pair(), pair(chosen='Red ' * 90, rejected='Red ' * 90 + 'Blue')]
  _, report = data.prepare(rows, qwen, kind='pairs', length=80)
  assert report.counts['no_target'] == 1 and report.examples == 1
  assert 'differ within 80 tokens' in report.named['no_target'][0]


def test_malformed_rows_are_counted_and_named(qwen, tmp_path):
  lines = [json.dumps(ask()), '{broken', '', json.dumps({'prompt': 3}), '[]']
  lines[1:1] = [json.dumps(ask(assistant='Red'))] * 2
  (tmp_path / 'a.jsonl').write_text('\n'.join(lines))
  rows = data.load_rows(tmp_path / 'a.jsonl')
  examples, report = data.prepare(rows, qwen, kind='text', length=100)
  assert (report.rows, report.examples, len(examples)) == (6, 3, 3)
  assert report.counts['malformed'] == 3
  places = [name.split(': ')[0] for name in report.named['malformed']]
  assert places == ['a.jsonl:4', 'a.jsonl:6', 'a.jsonl:7']
  assert "field 'prompt': found int 3, expected text" in report.table()
  with pytest.raises(data.RowError, match='a.jsonl:4: field .*not JSON'):
    data.prepare(rows, qwen, kind='text', length=100, on_bad_row='raise')


def test_duplicates_are_counted_and_dropped_if_asked(qwen):
  rows = [ask(), ask('Hello', 'Red.'), ask(), ask(), pair()]
  rows = rows[:4]
  kept, report = data.prepare(rows, qwen, kind='text', length=100)
  assert len(kept) == 4 and report.counts['duplicates'] == 2
  assert report.named['duplicates'] == ['rows:3', 'rows:4']
  assert 'duplicate rows, kept' in report.table()
  dropped, report = data.prepare(
    rows, qwen, kind='text', length=100, drop_duplicates=True
  )
  assert [e.row for e in dropped] == [0, 1] and report.examples == 2
  assert 'duplicate rows, dropped' in report.table()


def test_what_is_held_out_and_trained_on_is_named(qwen):
  kw = dict(kind='text', length=100)
  training, _ = data.prepare([ask(), ask('Hello', 'Red.')], qwen, **kw)
  heldout, report = data.prepare([ask('Hello', 'Blue.'), ask()], qwen, **kw)
  data.report_trained_on(heldout, training, report)
  assert report.named['trained_on'] == ['rows:2']
  assert 'held out that are trained on' in report.table()


def test_the_same_pair_the_other_way_round_is_no_duplicate(qwen):
  rows = [pair(), pair(chosen='Blue.', rejected='Red.')]
  _, report = data.prepare(rows, qwen, kind='pairs', length=100)
  assert report.counts['duplicates'] == 0


def test_prompts_too_long_are_left_out_whole(qwen):
  rows = [{'prompt': 'Hello ' * 100}, {'prompt': 'Hello', 'answer': '4'}]
  rows = data.Rows.of(rows)
  examples, report = data.prepare(rows, qwen, kind='prompts', length=60)
  assert [e.row for e in examples] == [1]
  assert examples.rows[examples[0].row]['answer'] == '4'
  assert report.counts['too_long'] == 1
  with pytest.raises(data.RowError, match='rows:1.*expected at most 60'):
    data.prepare(rows, qwen, kind='prompts', length=60, on_bad_row='raise')


def test_long_documents_are_divided(qwen):
  rows = [{'text': 'What is two plus two? ' * 40}, {'text': 'Hello'}]
  examples, report = data.prepare(rows, qwen, kind='text', length=32)
  assert report.counts['divided'] == 1 and report.counts['cut'] == 0
  whole = qwen(rows[0]['text'])['input_ids'] + [qwen.eos_token_id]
  pieces = [e.tokens[0][1:] for e in examples if e.row == 0]
  np.testing.assert_array_equal(np.concatenate(pieces), whole[1:])


def test_control_tokens_in_text_are_counted(qwen):
  rows = [ask(user='<|im_end|>'), ask()]
  _, report = data.prepare(rows, qwen, kind='text', length=100)
  assert report.named['neutralised'] == ['rows:1']


def test_what_a_template_leaves_out_is_counted(qwen):
  tool = {'type': 'function', 'function': {'name': 'calculator'}}
  messages = [
    {'role': 'user', 'content': 'a'},
    {'role': 'assistant', 'content': 'b'},
  ]
  rows = [{'messages': messages, 'tools': [tool]}, {'messages': messages}]
  count = lambda **kw: data.prepare(rows, qwen, length=100, **kw)[1].named
  assert count(kind='text')['unwritten'] == ['rows:1']
  assert count(kind='prompts')['unwritten'] == ['rows:1']
  assert not count(kind='text', template='chatml')['unwritten']


def test_the_report_adds_up(qwen):
  rows = [ask(assistant=f'It is {i}.') for i in range(300)]
  examples, report = data.prepare(rows, qwen, kind='text', length=99)
  assert report.rows == report.examples == len(examples) == 300
  assert report.tokens == sum(len(e.tokens[0]) for e in examples)
  assert report.targets == sum(e.learned[0].sum() for e in examples)
  assert [e.row for e in examples] == list(range(300))
  assert report.table().splitlines()[0].split() == ['300', 'rows', 'read']


def test_a_table_names_a_few_rows_and_all_where_it_is_asked_to(qwen):
  rows = [{'prompt': 3, 'completion': 'a'}] * 20 + [ask()]
  _, report = data.prepare(rows, qwen, kind='text', length=99)
  assert report.counts['malformed'] == 20
  table = report.table()
  assert table.count("field 'prompt'") == 5 and 'rows:5' in table
  assert 'rows:6' not in table and 'and 15 more' in table
  table = report.table(most=None)
  assert table.count("field 'prompt'") == 20 and 'more' not in table
  assert all(f'rows:{i}: ' in table for i in range(1, 21))


def test_a_template_is_refused_whatever_becomes_of_bad_rows(qwen):
  from tiny_tokenizers import THINKING

  turns = [('user', 'a'), ('assistant', 'b')] * 2
  messages = [{'role': r, 'content': c} for r, c in turns]
  with pytest.raises(data.TemplateRefused, match='^rows:1: '):
    data.prepare(
      [{'messages': messages}], qwen, kind='text', length=99, template=THINKING
    )


def test_nothing_left_is_an_error(qwen):
  with pytest.raises(ValueError, match="no example of kind 'text' in 0 rows"):
    data.prepare([], qwen, kind='text', length=99)
  with pytest.raises(ValueError, match='(?s)in 1 rows.*malformed'):
    data.prepare([pair()], qwen, kind='text', length=99)


@pytest.mark.parametrize(
  'kw, message',
  [
    (dict(kind='sft'), "kind 'sft': expected one of text, pairs"),
    (dict(length=1), 'length 1: expected at least 2'),
    (dict(on_bad_row='drop'), "on_bad_row 'drop': expected one of skip, raise"),
    (dict(turns='first'), "turns 'first'"),
    (dict(turns='last', kind='pairs'), "for kind 'text' only; with kind 'pai"),
    (dict(format='chat'), "format 'chat' is unknown"),
  ],
)
def test_wrong_arguments(qwen, kw, message):
  with pytest.raises(ValueError, match=message):
    data.prepare([ask()], qwen, **(dict(kind='text', length=9) | kw))


def test_progress_shows_the_time_left(qwen, capsys):
  data.prepare([ask()], qwen, kind='text', length=99, progress=True)
  assert 'preparing data' in capsys.readouterr().err


def test_load_tokenizer(qwen, tmp_path):
  qwen.save_pretrained(tmp_path)
  loaded = data.load_tokenizer(tmp_path)
  assert loaded.chat_template == qwen.chat_template
  assert loaded('Hello')['input_ids'] == qwen('Hello')['input_ids']
  (tmp_path / 'empty').mkdir()
  with pytest.raises(FileNotFoundError, match='no tokenizer; expected one of'):
    data.load_tokenizer(tmp_path / 'empty')
  with pytest.raises(ValueError, match='no folder or hub name'):
    data.load_tokenizer(str(tmp_path / 'nobody' / 'nothing'))
  (tmp_path / 'empty' / 'tokenizer.json').write_text('{')
  with pytest.raises(ValueError, match='cannot be read'):
    data.load_tokenizer(tmp_path / 'empty')


def test_a_sentencepiece_model_will_do(tmp_path):
  """Its tokens carry their leading space, and still keep their places."""
  sentencepiece = pytest.importorskip('sentencepiece')
  from tiny_tokenizers import CORPUS

  (tmp_path / 'corpus').write_text('\n'.join(CORPUS * 20))
  sentencepiece.SentencePieceTrainer.train(
    input=str(tmp_path / 'corpus'),
    model_prefix=str(tmp_path / 'tokenizer'),
    vocab_size=330,
    model_type='bpe',
    byte_fallback=True,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  config = {'tokenizer_class': 'LlamaTokenizer', 'add_bos_token': True}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  tokenizer = data.load_tokenizer(tmp_path)
  template = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}{% else %}"
    "{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
  )
  [example], report = data.prepare(
    [ask()], tokenizer, kind='text', length=99, template=template
  )
  learned = tokenizer.decode(example.tokens[0][example.learned[0]])
  assert learned.strip() == 'It is four. </s>'
  assert report.counts['merged'] == 0


def test_a_tokenizer_that_is_none():
  with pytest.raises(TypeError, match='found NoneType, expected a fast'):
    data.prepare([ask()], None, kind='text', length=99)
