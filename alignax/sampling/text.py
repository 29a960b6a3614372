"""From conversations to text: the host's side of sampling."""

import dataclasses
import functools
import secrets
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from alignax.sampling import prompts as prompts_lib
from alignax.sampling import sampler
from alignax.sampling.settings import Sampling
from alignax.types import Params

BLOCK = 32  # Tokens between two looks at the text, where strings end it.


@dataclasses.dataclass(frozen=True)
class Response:
  """What a model wrote.

  Attributes:
    text: without special tokens, and without the string that ended it.
    tokens: with the token that ended it, or whose text did.
    logps: of `tokens`, as `sample` returns them.
    finished: whether a stop token or string ended it, and not the length.
  """

  text: str
  tokens: list[int]
  logps: list[float]
  finished: bool


def generate(
  model,
  params: Params,
  tokenizer,
  prompts: Sequence,
  sampling: Sampling,
  *,
  max_new_tokens: int,
  seed: int | None = None,
  stop_strings: Sequence[str] = (),
  batch_size: int = 16,
  max_length: int | None = None,
  unroll: bool = False,
  progress: Callable[[int, int], None] | None = None,
) -> list[Response]:
  """Writes a response to every prompt.

  Prompts of similar length share a batch. What is drawn for a prompt depends
  on the seed and on its place in `prompts`, not on `batch_size`.

  Args:
    model: as for `sample`.
    params: of the model.
    tokenizer: a fast tokenizer of transformers.
    prompts: each a conversation (messages with `role` and `content`, which go
      through the chat template), a text (tokenised as it is) or a list of
      token ids.
    sampling: from `make_sampling`; its stop ids end a response.
    max_new_tokens: longest response.
    seed: of the draws; None takes a new one from the operating system.
    stop_strings: text that ends a response, and is cut from it.
    batch_size: rows that are sampled together.
    max_length: of prompt and response; None is `model.config.max_length`.
    unroll: as for `sample`; pays from some hundred tokens a row on.
    progress: called with the number of finished prompts and of all.

  Returns:
    A response for each prompt, in order.
  """
  for name, texts in ('prompts', prompts), ('stop_strings', stop_strings):
    if isinstance(texts, str):
      raise ValueError(f'{name} is one string, {texts!r}; give a list.')
  if not all(stop_strings):
    raise ValueError(f'stop_strings {stop_strings} hold an empty one.')
  tokens = [encode(tokenizer, prompt) for prompt in prompts]
  max_length = model.config.max_length if max_length is None else max_length
  _check_lengths(tokens, max_new_tokens, max_length)
  # Two calls without a seed never draw alike.
  key = jax.random.key(secrets.randbits(32) if seed is None else seed)
  text_of = functools.partial(_text, tokenizer, stop_strings)
  find_end = functools.partial(_string_end, tokenizer, stop_strings)
  responses: dict[int, Response] = {}
  for chosen, size in _batches(tokens, batch_size):
    empty = [[]] * (size - len(chosen))  # Done from the start.
    batch = prompts_lib.left_pad([tokens[i] for i in chosen] + empty)
    places = np.array(chosen + [0] * len(empty), np.uint32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    rows = _write(
      model, params, batch, keys, sampling, max_new_tokens,
      unroll, find_end if stop_strings else None,
    )  # fmt: skip
    for i, (written, *rest) in zip(chosen, rows):
      responses[i] = Response(text_of(written), written, *rest)
    if progress is not None:
      progress(len(responses), len(tokens))
  return [responses[i] for i in range(len(tokens))]


def encode(tokenizer, prompt) -> list[int]:
  """Token ids of a conversation, a text, or token ids."""
  if isinstance(prompt, str):
    return tokenizer(prompt)['input_ids']
  if not len(prompt) or not isinstance(prompt[0], dict):
    return [int(token) for token in prompt]
  if not tokenizer.chat_template:
    raise ValueError(
      'The tokenizer has no chat template, which a conversation needs; set '
      '`tokenizer.chat_template`, or give the prompt as text or token ids.'
    )
  return tokenizer.apply_chat_template(
    prompt, add_generation_prompt=True, return_dict=False
  )


def _batches(tokens, batch_size: int) -> Iterator[tuple[list[int], int]]:
  """Indices of prompts of similar length, and rows of their batch."""
  if batch_size < 1:
    raise ValueError(f'batch_size is {batch_size}; give at least 1.')
  order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
  # Few prompts take a small batch, of few sizes.
  size = min(batch_size, 1 << max(0, len(tokens) - 1).bit_length())
  for start in range(0, len(order), size):
    yield order[start : start + size], size


def _write(
  model, params, batch, keys, sampling, max_new_tokens, unroll, find_end
) -> Iterator[tuple[list[int], list[float], bool]]:  # fmt: skip
  """Tokens, log-probs and whether it finished, for every row of a batch."""
  params, state = _start(
    model, params, batch, keys, max_new_tokens=max_new_tokens, unroll=unroll
  )
  block = max_new_tokens if find_end is None else BLOCK
  ends = np.zeros(len(keys), np.int32)  # Tokens up to a stop string.
  for until in range(block, max_new_tokens + block, block):
    until = np.asarray(until, np.int32)
    state = _advance(model, params, state, sampling, until=until)
    tokens, lengths, done = jax.device_get(
      (state.tokens, state.lengths, state.done)
    )
    if find_end is not None:
      texts = zip(ends, tokens, lengths)
      ends = np.array([end or find_end(t[:n]) for end, t, n in texts])
      done = done | (ends > 0)
      state = state.replace(done=jax.device_put(done, state.done.sharding))
    if done.all() or until >= sampling.limit:
      break
  logps = jax.device_get(state.logps)
  for i, length in enumerate(np.where(ends > 0, ends, lengths)):
    yield tokens[i, :length].tolist(), logps[i, :length].tolist(), bool(done[i])


# Compiled once a shape, as `sample` is; a state is used up by going on from it.
_start = jax.jit(
  sampler.start, static_argnames=('model', 'max_new_tokens', 'unroll')
)
_advance = jax.jit(
  sampler.advance, static_argnames=('model',), donate_argnames=('state',)
)


def _string_end(tokenizer, stop_strings, tokens) -> int:
  """The number of tokens whose text first holds a stop string, or 0."""

  def holds(length):
    # Special tokens are text here: one of them may be asked for.
    text = tokenizer.decode(tokens[:length], skip_special_tokens=False)
    return any(string in text for string in stop_strings)

  if not holds(len(tokens)):
    return 0
  return next(n for n in range(1, len(tokens) + 1) if holds(n))


def _text(tokenizer, stop_strings, tokens) -> str:
  """The text of a response, up to the first stop string."""
  text = tokenizer.decode(tokens, skip_special_tokens=True)
  found = [text.index(string) for string in stop_strings if string in text]
  return text[: min(found)] if found else text


def _check_lengths(tokens, max_new_tokens: int, max_length: int):
  for i, prompt in enumerate(tokens):
    if not prompt:
      raise ValueError(f'Prompt {i} has no tokens; give at least one.')
    if len(prompt) + max_new_tokens > max_length:
      raise ValueError(
        f'Prompt {i} has {len(prompt)} tokens, which with {max_new_tokens} new '
        f'ones is more than max_length {max_length}; shorten the prompt, lower '
        'max_new_tokens or raise max_length.'
      )
