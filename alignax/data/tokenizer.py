"""Loads the tokenizer that belongs to a model."""

import pathlib

_FILES = ('tokenizer.json', 'tokenizer.model', 'vocab.json')


def load_tokenizer(path):
  """Loads a fast tokenizer of transformers, without torch.

  Args:
    path: a folder with `tokenizer.json` or `tokenizer.model` and, for special
      tokens and the chat template, `tokenizer_config.json`; or a hub name.

  Returns:
    The tokenizer.

  Raises:
    FileNotFoundError: the folder has no tokenizer.
    ValueError: it cannot be read, or found on the hub.
  """
  from transformers import AutoTokenizer

  path = str(path)
  folder = pathlib.Path(path)
  if folder.is_dir() and not any((folder / f).is_file() for f in _FILES):
    raise FileNotFoundError(
      f'{path}: no tokenizer; expected one of {", ".join(_FILES)} beside the '
      "weights. Copy the tokenizer's files from where the model came from."
    )
  try:
    tokenizer = AutoTokenizer.from_pretrained(path)
  except Exception as e:
    what = 'cannot be read' if folder.is_dir() else 'is no folder or hub name'
    raise ValueError(
      f'{path}: tokenizer {what} ({type(e).__name__}: {e})'
    ) from e
  if not tokenizer.is_fast:
    raise ValueError(
      f'{path}: found a slow tokenizer ({type(tokenizer).__name__}); expected '
      'a fast one, whose offsets tell which token is whose. Save it again '
      'with a tokenizer.json.'
    )
  return tokenizer
