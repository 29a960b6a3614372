"""From prompts to text, on a tokenizer of one token a letter."""

import jax
import numpy as np
import pytest
import sampling_worlds as worlds
import tokenizers
from transformers import PreTrainedTokenizerFast

from alignax.sampling import generate, left_pad, make_sampling, sample, text

LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789'
END = len(LETTERS)
TEMPLATE = (
  "{% for m in messages %}{{ m['role'][0] + m['content'] }}{% endfor %}"
  '{% if add_generation_prompt %}a{% endif %}'
)
WORDS = ['hello', 'a', 'ninetynine', 'xyz', 'longerthansixteenletters']


@pytest.fixture(scope='module')
def tokenizer():
  vocab = {letter: i for i, letter in enumerate(LETTERS)} | {'<end>': END}
  backend = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(vocab, unk_token='a')
  )
  split = tokenizers.Regex('.')
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(split, 'isolated')
  backend.decoder = tokenizers.decoders.Fuse()
  made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token='<end>')
  made.chat_template = TEMPLATE
  return made


@pytest.fixture(scope='module')
def model():
  return worlds.make_model()


@pytest.fixture
def run(model, tokenizer):
  def run(prompts, *, seed=0, max_new_tokens=40, stop_strings=(), **kw):
    known = {'batch_size', 'max_length', 'progress'} & set(kw)
    known = {name: kw.pop(name) for name in known}
    sampling = make_sampling(**{'stop_ids': (END,)} | kw)
    return generate(
      *model, tokenizer, prompts, sampling, seed=seed,
      max_new_tokens=max_new_tokens, stop_strings=stop_strings, **known,
    )  # fmt: skip

  return run


def test_text_tokens_and_logps_belong_together(run, tokenizer):
  for response in run(WORDS):
    assert len(response.tokens) == len(response.logps) <= 40
    assert response.text == tokenizer.decode(
      response.tokens, skip_special_tokens=True
    )
    assert response.finished == (response.tokens[-1] == END)
    assert (END in response.tokens[:-1]) is False


def test_it_is_sample_with_a_tokenizer(run, model):
  prompts = left_pad([[7, 4, 11, 11, 14]])
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.key(5), np.arange(1, dtype=np.uint32)
  )
  sampling = make_sampling(temperature=0.9, stop_ids=(END,))
  rows = sample(*model, prompts, keys, sampling, max_new_tokens=40)
  (response,) = run(['hello'], seed=5, temperature=0.9)
  np.testing.assert_array_equal(worlds.response(rows, 0), response.tokens)
  logps = np.asarray(rows['logps'])[np.asarray(rows['mask'])]
  np.testing.assert_allclose(logps, response.logps, atol=1e-5)


def test_seed_and_place_decide_not_the_batch(run):
  whole = run(WORDS)
  assert [r.tokens for r in run(WORDS, batch_size=2)] == [
    r.tokens for r in whole
  ]
  assert [r.tokens for r in run(WORDS, seed=1)] != [r.tokens for r in whole]


def test_without_a_seed_two_calls_differ(run):
  first, second = run(['hello'], seed=None), run(['hello'], seed=None)
  assert first[0].tokens != second[0].tokens


def test_prompts_are_conversations_text_or_tokens(run):
  chat = [{'role': 'user', 'content': 'hello'}]
  responses = [
    run([prompt], temperature=0.0)[0].tokens
    for prompt in (chat, 'uhelloa', [20, 7, 4, 11, 11, 14, 0])
  ]
  assert responses[0] == responses[1] == responses[2]


def test_a_stop_string_over_two_tokens_ends_the_text(run):
  free = run(WORDS, min_new_tokens=40)
  at = 9
  for i, response in enumerate(free):
    string = response.text[at : at + 2]
    end = response.text.index(string)
    cut = run(WORDS, min_new_tokens=40, stop_strings=['?', string])[i]
    assert cut.text == response.text[:end] and cut.finished
    assert cut.tokens == response.tokens[: end + 2]
    assert cut.logps == response.logps[: end + 2]


def test_a_stop_string_may_cross_blocks(run, monkeypatch):
  monkeypatch.setattr(text, 'BLOCK', 4)
  free = run(['hello'], min_new_tokens=40)[0]
  (cut,) = run(['hello'], min_new_tokens=40, stop_strings=[free.text[:9]])
  assert cut.text == '' and len(cut.tokens) == 9
  (whole,) = run(['hello'], min_new_tokens=40, stop_strings=['?'])
  assert whole == free and not whole.finished


def test_a_stop_string_may_be_a_special_token(run):
  free = run(WORDS)
  ended = run(WORDS, stop_ids=(), stop_strings=['<end>'])
  assert [r.tokens for r in ended] == [r.tokens for r in free]
  assert [r.text for r in ended] == [r.text for r in free]
  assert any(r.finished for r in ended)


def test_limits(run):
  assert all(len(r.tokens) <= 3 for r in run(WORDS, max_new_tokens=3))
  sampling = dict(stop_ids=(), stop_strings=['?'])
  assert all(len(r.tokens) == 40 for r in run(WORDS, **sampling))


def test_few_shapes_are_compiled(run):
  run(WORDS)
  before = text._start._cache_size(), text._advance._cache_size()
  run(WORDS[::-1], seed=3, temperature=0.3, top_p=0.5, stop_ids=(2, 3))
  run([word + 'b' for word in WORDS], min_new_tokens=2, top_k=4)
  assert (text._start._cache_size(), text._advance._cache_size()) == before


def test_progress_counts_prompts(run):
  seen = []
  run(WORDS, batch_size=2, progress=lambda *counts: seen.append(counts))
  assert seen == [(2, 5), (4, 5), (5, 5)]


def test_no_prompts_no_responses(run):
  assert run([]) == []


@pytest.mark.parametrize(
  'prompts, kw, found',
  [
    (['hello', ''], {}, 'Prompt 1 has no tokens'),
    ([[]], {}, 'Prompt 0 has no tokens'),
    (['hello'], {'max_length': 44}, 'Prompt 0 has 5 tokens'),
    ('hello', {}, 'prompts is one string'),
    (['hello'], {'stop_strings': 'ab'}, 'stop_strings is one string'),
    (['hello'], {'stop_strings': ['ab', '']}, 'empty'),
    (['hello'], {'batch_size': 0}, 'batch_size'),
  ],
)
def test_bad_prompts_are_refused(run, prompts, kw, found):
  with pytest.raises(ValueError, match=found):
    run(prompts, **kw)


def test_a_conversation_needs_a_template(model, tokenizer, monkeypatch):
  monkeypatch.setattr(tokenizer, 'chat_template', None)
  with pytest.raises(ValueError, match='no chat template'):
    text.encode(tokenizer, [{'role': 'user', 'content': 'hi'}])


def test_left_pad():
  batch = left_pad([[5, 6, 7], [], [0]], length=4)
  np.testing.assert_array_equal(
    batch['inputs'], [[0, 5, 6, 7], [0, 0, 0, 0], [0, 0, 0, 0]]
  )
  np.testing.assert_array_equal(
    batch['segments'], [[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
  )
  np.testing.assert_array_equal(batch['positions'][0], [0, 0, 1, 2])
  shapes = [left_pad([[1] * n])['inputs'].shape[1] for n in (1, 16, 17, 100)]
  assert shapes == [16, 16, 32, 128]
  with pytest.raises(ValueError, match='3 tokens'):
    left_pad([[1, 2, 3]], length=2)
