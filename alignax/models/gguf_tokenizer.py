"""The tokenizer inside a GGUF file, as tokenizer.json and its settings."""

import json
from pathlib import Path
from typing import Any

from alignax.models import gguf

# Of `tokenizer.ggml.token_type`.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s|"
  r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
# How text is cut into words before merges, by `tokenizer.ggml.pre`: a pattern,
# or None for GPT-2's own; and whether digits stand alone first.
CUTS = {
  'gpt-2': (None, False),
  'gpt2': (None, False),
  'smollm': (None, True),
  'llama-bpe': (_WORDS % '{1,3}', False),
  'llama3': (_WORDS % '{1,3}', False),
  'qwen2': (_WORDS % '', False),
}
ROLES = {'bos': 'bos', 'eos': 'eos', 'unk': 'unknown', 'pad': 'padding'}


def write(path: Path, directory: Path) -> None:
  """Writes tokenizer.json and its settings from a GGUF file.

  Raises:
    ValueError: naming a tokenizer that is not supported.
  """
  reader = gguf.open_file(path)
  try:
    settings = read_settings(reader)
    tokenizer = build(reader)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  tokenizer.save(str(directory / 'tokenizer.json'))
  _write_json(directory / 'tokenizer_config.json', settings)
  ids = token_ids(reader)
  if ids:
    _write_json(directory / 'generation_config.json', ids)


def build(reader) -> Any:
  """A `tokenizers.Tokenizer` from a file's metadata."""
  from tokenizers import AddedToken

  kind, pre = _field(reader, 'model'), _field(reader, 'pre')
  if kind == 'gpt2' and pre in CUTS:
    tokenizer = _byte_level(reader, pre)
  elif kind == 'llama':
    tokenizer = _sentencepiece(reader)
  else:
    raise ValueError(
      f'tokenizer model {kind!r} with pre-tokenizer {pre!r} is not supported '
      f"(supported: 'gpt2' with one of {list(CUTS)}, and 'llama'). Take "
      "tokenizer.json from the model's Hugging Face directory instead."
    )
  tokens = _field(reader, 'tokens')
  tokenizer.post_processor = _post_processor(reader, tokens, kind == 'gpt2')
  for token, kind in zip(tokens, _field(reader, 'token_type')):
    added = AddedToken(token, normalized=False, special=kind != USER_DEFINED)
    if kind in (CONTROL, UNKNOWN):
      tokenizer.add_special_tokens([added])
    elif kind == USER_DEFINED:
      tokenizer.add_tokens([added])
  return tokenizer


def _byte_level(reader, pre: str) -> Any:
  """As GPT-2: merges of bytes within words."""
  from tokenizers import Tokenizer, decoders, models, normalizers

  merges = [tuple(merge.split(' ')) for merge in _field(reader, 'merges')]
  tokenizer = Tokenizer(
    models.BPE(
      vocab=_vocab(reader),
      merges=merges,
      # Llama 3 takes whole words from the vocabulary before it merges.
      ignore_merges=pre in ('llama-bpe', 'llama3'),
    )
  )
  if pre == 'qwen2':
    tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = _pre_tokenizer(*CUTS[pre])
  tokenizer.decoder = decoders.ByteLevel()
  return tokenizer


def _sentencepiece(reader) -> Any:
  """As Llama 2, Mistral and Gemma: merges of whole text, by their scores."""
  from tokenizers import Tokenizer, decoders, models, normalizers

  unknown = _field(reader, 'unknown_token_id')
  tokens = _field(reader, 'tokens')
  tokenizer = Tokenizer(
    models.BPE(
      vocab=_vocab(reader),
      merges=_scored_merges(reader),
      unk_token=None if unknown is None else tokens[unknown],
      fuse_unk=True,
      byte_fallback=True,
    )
  )
  prefix = _field(reader, 'add_space_prefix') is not False
  steps = [normalizers.Prepend('\u2581')] if prefix else []
  steps.append(normalizers.Replace(' ', '\u2581'))
  tokenizer.normalizer = normalizers.Sequence(steps)
  steps = [decoders.Replace('\u2581', ' ')]
  steps += [decoders.ByteFallback(), decoders.Fuse()]
  if prefix:
    steps.append(decoders.Strip(content=' ', left=1))
  tokenizer.decoder = decoders.Sequence(steps)
  return tokenizer


def _scored_merges(reader) -> list[tuple[str, str]]:
  """Every way to make a token of two others, the best token first."""
  vocab = _vocab(reader)
  kinds, scores = _field(reader, 'token_type'), _field(reader, 'scores')
  merges = []
  for token, index in vocab.items():
    if kinds[index] != NORMAL:
      continue
    for cut in range(1, len(token)):
      left, right = token[:cut], token[cut:]
      if left in vocab and right in vocab:
        rank = (-scores[index], vocab[left], vocab[right])
        merges.append((rank, left, right))
  return [(left, right) for _, left, right in sorted(merges)]


def _vocab(reader) -> dict[str, int]:
  return {token: i for i, token in enumerate(_field(reader, 'tokens'))}


def _pre_tokenizer(pattern: str | None, single_digits: bool) -> Any:
  from tokenizers import Regex, pre_tokenizers

  steps = []
  if single_digits:
    steps.append(pre_tokenizers.Digits(individual_digits=True))
  if pattern is not None:
    steps.append(pre_tokenizers.Split(Regex(pattern), behavior='isolated'))
  steps.append(
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
  )
  return pre_tokenizers.Sequence(steps)


def _post_processor(reader, tokens: list[str], byte_level: bool) -> Any:
  from tokenizers import processors

  steps = [processors.ByteLevel(trim_offsets=False)] if byte_level else []
  begin = _field(reader, 'add_bos_token')
  # What the format says of a file that does not say.
  if (not byte_level) if begin is None else begin:
    bos = _field(reader, 'bos_token_id')
    name = tokens[bos]
    steps.append(
      processors.TemplateProcessing(
        single=[name, '$A'],
        pair=[name, '$A', f'{name}:1', '$B:1'],
        special_tokens=[(name, bos)],
      )
    )
  return processors.Sequence(steps)


def read_settings(reader) -> dict[str, Any]:
  """tokenizer_config.json: special tokens by role, and the chat template."""
  tokens = _field(reader, 'tokens')
  if tokens is None:
    raise ValueError('the file holds no tokenizer (no tokenizer.ggml.tokens).')
  settings = dict(
    tokenizer_class='PreTrainedTokenizerFast',
    clean_up_tokenization_spaces=False,
    add_prefix_space=False,
  )
  arch = _value(reader, 'general.architecture')
  length = _value(reader, f'{arch}.context_length')
  if length is not None:
    settings['model_max_length'] = length
  for role, name in ROLES.items():
    index = _field(reader, f'{name}_token_id')
    if index is not None:
      settings[f'{role}_token'] = tokens[index]
  template = _value(reader, 'tokenizer.chat_template')
  if template is not None:
    settings['chat_template'] = template
  return settings


def token_ids(reader) -> dict[str, int]:
  """bos_token_id, eos_token_id and pad_token_id, where the file has them."""
  ids = {
    f'{role}_token_id': _field(reader, f'{ROLES[role]}_token_id')
    for role in ('bos', 'eos', 'pad')
  }
  return {name: value for name, value in ids.items() if value is not None}


def _field(reader, name: str) -> Any:
  return _value(reader, f'tokenizer.ggml.{name}')


def _value(reader, name: str) -> Any:
  field = reader.fields.get(name)
  return None if field is None else field.contents()


def _write_json(path: Path, value: dict[str, Any]) -> None:
  path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + '\n')
