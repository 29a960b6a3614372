"""The synthetic world: its draws, its split, its score, its annotators."""

import json
import random

import pytest

from alignax import data
from alignax.data import synthetic
from alignax.data.synthetic import text
from alignax.data.synthetic import words as w

NAMES = (
  'text',
  'demonstrations',
  'prompts',
  'preferences',
  'rankings',
  'unpaired',
)


def a_row(**fields):
  """An instruction to reverse two words, with `fields` changed."""
  row = dict(
    task='reverse',
    answer='dog cat',
    reference='dog cat',
    options=[],
    length=0,
    constraint='',
    refuse=False,
    opinion='',
  )
  return {**row, **fields}


class TestRows:
  @pytest.mark.parametrize('name', NAMES)
  def test_is_a_function_of_name_seed_and_index(self, name):
    rows = synthetic.rows(name, n=20, seed=3)
    assert rows == synthetic.rows(name, n=20, seed=3)
    assert rows[:7] == synthetic.rows(name, n=7, seed=3)
    assert rows != synthetic.rows(name, n=20, seed=4)

  @pytest.mark.parametrize('name', NAMES)
  def test_is_json(self, name):
    rows = synthetic.rows(name, n=50)
    assert json.loads(json.dumps(rows)) == rows

  def test_every_family_is_drawn(self):
    rows = synthetic.rows('prompts', n=600)
    assert {row['task'] for row in rows} == set(synthetic.TASKS)

  def test_only_the_families_asked_for_are_drawn(self):
    rows = synthetic.rows('prompts', n=50, tasks='copy,refuse')
    assert {row['task'] for row in rows} == {'copy', 'refuse'}

  def test_held_out_instances_are_disjoint(self):
    keys = {
      split: {
        row['key'] for row in synthetic.rows('prompts', n=3000, split=split)
      }
      for split in ('train', 'heldout')
    }
    assert not keys['train'] & keys['heldout']
    assert all(synthetic.split_of(key) == 'heldout' for key in keys['heldout'])

  @pytest.mark.parametrize('task', synthetic.TASKS)
  def test_every_family_has_held_out_instances(self, task):
    rows = synthetic.rows('prompts', n=60, split='heldout', tasks=task)
    assert len({row['key'] for row in rows}) >= 2

  def test_held_out_wordings_are_new(self):
    kinds = {
      p: {
        row['prompt'][0]['content'].split()[0]
        for row in synthetic.rows('prompts', n=50, tasks='copy', phrasings=p)
      }
      for p in ('train', 'heldout')
    }
    assert not kinds['train'] & kinds['heldout']

  def test_paths_choose_wordings_and_quality(self):
    path = 'synthetic:demonstrations?n=200&phrasings=0,2&quality=0,0,1'
    found = list(data.load_rows(path).sources[0].rows)
    assert {row['phrasing'] for row in found} == {0, 2}
    one = data.load_rows('synthetic:prompts?n=40&phrasings=3').sources[0].rows
    assert {row['phrasing'] for row in one} == {3}
    text = lambda row: row['messages'][-1]['content']
    right = [synthetic.answered(row, text(row)) for row in found]
    assert sum(right) < 0.3 * len(right)

  @pytest.mark.parametrize('kw', [{'phrasings': 'blue'}, {'quality': '1,x'}])
  def test_what_is_no_number(self, kw):
    with pytest.raises(ValueError, match='numbers with commas'):
      synthetic.rows('demonstrations', **kw)

  def test_opinions_are_wrong_and_said(self):
    rows = synthetic.rows('prompts', n=300, opinions=1.0)
    voiced = [row for row in rows if row['opinion']]
    assert len(voiced) > 100
    for row in voiced:
      assert row['opinion'] != row['answer']
      assert row['prompt'][-1]['content'].endswith(row['opinion'])

  def test_demonstrations_are_mixed_and_mostly_right(self):
    rows = synthetic.rows('demonstrations', n=1000)
    texts = [row['messages'][-1]['content'] for row in rows]
    right = sum(map(synthetic.answered, rows, texts))
    best = sum(x == row['reference'] for row, x in zip(rows, texts))
    assert 900 < right < 990
    assert 300 < best < 500

  def test_chosen_is_mostly_better(self):
    rows = synthetic.rows('preferences', n=500)
    assert sum(row['gold_margin'] > 0 for row in rows) > 400

  def test_unknown_names_are_refused_by_name(self):
    with pytest.raises(ValueError, match="'demos'.*demonstrations"):
      synthetic.rows('demos')
    with pytest.raises(ValueError, match="'swim'.*reverse"):
      synthetic.rows('prompts', tasks='swim')


class TestGoldScore:
  def test_the_reference_is_perfect(self):
    for row in synthetic.rows('prompts', n=1000):
      score = synthetic.gold_score(row, row['reference'])
      assert score['total'] == 1, (row, score)

  def test_silence_and_the_question_are_worth_nothing(self):
    for row in synthetic.rows('prompts', n=500):
      assert synthetic.gold_score(row, '')['total'] == 0
      assert not synthetic.answered(row, row['prompt'][-1]['content'] + ' ?')

  def test_more_words_are_worth_less_and_still_an_answer(self):
    row = a_row()
    brief, wordy = 'dog cat', 'sure , the answer is dog cat .'
    assert synthetic.answered(row, wordy)
    assert (
      synthetic.gold_score(row, brief)['total']
      > synthetic.gold_score(row, wordy)['total']
      > 0.5
    )

  def test_a_list_of_candidates_is_no_answer(self):
    assert not synthetic.answered(a_row(), 'cat dog . dog cat')
    assert not synthetic.answered(a_row(), 'dog cat . question reverse pig cow')

  def test_a_wrong_answer_is_worth_little_by_its_words_in_place(self):
    total = lambda x: synthetic.gold_score(a_row(), x)['total']
    assert total('cat pig') == 0
    assert 0 < total('dog pig') < 0.3 < total('dog cat')

  def test_a_format_has_to_be_kept(self):
    row = a_row(constraint='commas', reference='dog , cat')
    assert synthetic.answered(row, 'the answer is dog , cat .')
    assert not synthetic.answered(row, 'dog cat')
    row = a_row(constraint='brackets', reference='[ dog cat ]')
    assert synthetic.answered(row, '[ dog cat ]')
    assert not synthetic.answered(row, 'dog [ cat ]')

  def test_a_length_has_to_be_kept_with_any_of_the_options(self):
    row = a_row(
      options=w.CATEGORIES['fruit'],
      length=2,
      answer='pear plum',
      reference='pear plum',
    )
    assert synthetic.answered(row, 'lemon grape')
    assert not synthetic.answered(row, 'lemon lemon')
    assert not synthetic.answered(row, 'lemon cat')
    assert not synthetic.answered(row, 'lemon grape pear')

  def test_refusal_is_right_where_it_is_due_and_only_there(self):
    due = a_row(refuse=True, reference=w.REFUSALS[0])
    for words in w.REFUSALS:
      assert synthetic.gold_score(due, words)['total'] == 1
      assert synthetic.gold_score(a_row(), words)['total'] == 0
    assert synthetic.gold_score(due, 'dog cat')['total'] == 0
    # A refusal that complies all the same is none.
    assert synthetic.gold_score(due, w.REFUSALS[0] + ' . dog cat')['total'] == 0

  def test_totals_stay_in_the_unit_interval(self):
    rng, words = random.Random(0), synthetic.vocabulary()
    for row in synthetic.rows('prompts', n=500):
      noise = ' '.join(rng.choices(words, k=rng.randrange(12)))
      assert 0 <= synthetic.gold_score(row, noise)['total'] <= 1


class TestAnnotators:
  def test_choose_by_bradley_terry(self):
    rng = random.Random(0)
    a, b = 'dog cat', 'the answer is dog cat .'
    draws = [
      synthetic.prefer(a_row(), a, b, noise=0.2, rng=rng) for _ in range(4000)
    ]
    p = draws[0][1]
    assert 0.5 < p < 0.9
    assert abs(sum(index == 0 for index, _ in draws) / 4000 - p) < 0.03

  def test_a_length_bias_turns_the_choice(self):
    a, b = 'dog cat', 'the answer is dog cat .'
    p = lambda bias: synthetic.prefer(
      a_row(), a, b, length_bias=bias, rng=random.Random(0)
    )[1]
    assert p(0.0) > 0.5 > p(1.0)

  def test_sycophancy_likes_what_the_user_believes(self):
    row = a_row(answer='7', reference='7', opinion='8')
    p = lambda s: synthetic.prefer(
      row, '7', '8', sycophancy=s, rng=random.Random(0)
    )[1]
    assert p(0.0) > 0.5 > p(20.0)

  def test_extreme_margins_are_finite(self):
    assert synthetic.prefer(
      a_row(), 'dog cat', '', noise=1e-6, rng=random.Random(0)
    ) == (0, 1.0)

  def test_ranks_of_two_are_a_preference(self):
    rng = random.Random(0)
    pair = ['dog cat', 'the answer is dog cat .']
    _, p = synthetic.prefer(a_row(), *pair, rng=rng)
    first = [
      synthetic.rank(a_row(), pair, rng=rng)[0] == 1 for _ in range(4000)
    ]
    assert abs(sum(first) / 4000 - p) < 0.03


class TestText:
  def test_documents_keep_to_their_length(self):
    for row in synthetic.rows('text', n=300, length=40):
      assert 0 < len(row['text'].split()) <= 40

  def test_a_question_is_usually_followed_by_a_question(self):
    texts = [row['text'] for row in synthetic.rows('text', n=1000)]
    count = lambda i: sum(
      x.count(f'{layout[i]} ') for x in texts for layout in text.LAYOUTS[:4]
    )
    assert count(1) < 0.5 * count(0)

  def test_no_held_out_list_is_solved(self):
    """Skills are learned on instances of the training split alone."""
    rng = random.Random(0)
    texts = [text.document(rng) for _ in range(1000)]
    for row in synthetic.rows(
      'prompts', n=300, split='heldout', tasks='reverse,sort'
    ):
      if len(row['answer'].split()) < 3:
        continue
      question = row['prompt'][0]['content']
      assert not any(f'{question} . answer' in x for x in texts)
      assert not any(f'{question} result' in x for x in texts)


class TestTokenizer:
  def test_round_trip_is_exact(self):
    tokenizer = synthetic.make_tokenizer()
    for row in synthetic.rows('text', n=200):
      assert tokenizer.decode(tokenizer.encode(row['text'])) == row['text']
    for row in synthetic.rows('demonstrations', n=500):
      for message in row['messages']:
        ids = tokenizer.encode(message['content'])
        assert tokenizer.decode(ids) == message['content']
        assert tokenizer.unk_token_id not in ids

  def test_the_template_takes_two_tokens_a_turn(self):
    tokenizer = synthetic.make_tokenizer()
    messages = [
      dict(role='user', content='reverse cat dog'),
      dict(role='assistant', content='dog cat'),
    ]
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    assert tokenizer.convert_ids_to_tokens(ids) == [
      '<|user|>',
      'reverse',
      'cat',
      'dog',
      '<|end|>',
      '<|assistant|>',
      'dog',
      'cat',
      '<|end|>',
    ]
    prompt = tokenizer.apply_chat_template(
      messages[:1], add_generation_prompt=True, return_dict=False
    )
    assert prompt == ids[:6]
    assert ids[-1] == tokenizer.eos_token_id

  def test_saves_and_loads(self, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = synthetic.make_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = synthetic.rows('demonstrations', n=1)[0]['messages']
    assert loaded.apply_chat_template(
      messages, return_dict=False
    ) == tokenizer.apply_chat_template(messages, return_dict=False)
    assert loaded.pad_token_id == tokenizer.pad_token_id == 0

  def test_sequences_are_short(self):
    tokenizer = synthetic.make_tokenizer()
    lengths = [
      len(tokenizer.apply_chat_template(row['messages'], return_dict=False))
      for row in synthetic.rows('demonstrations', n=2000)
    ]
    assert max(lengths) <= 64
    assert sum(lengths) / len(lengths) < 24
