"""Fixtures of the data tests."""

import json
import os

# Before the libraries that read it: no test may wait for a network.
os.environ['HF_HUB_OFFLINE'] = '1'

import pytest
from tiny_tokenizers import LLAMA3, QWEN, make_tokenizer


@pytest.fixture(scope='session')
def qwen():
  return make_tokenizer(QWEN)


@pytest.fixture(scope='session')
def llama3():
  special = ('<|begin_of_text|>', '<|eot_id|>')
  special += ('<|start_header_id|>', '<|end_header_id|>')
  return make_tokenizer(
    LLAMA3, special=special, bos='<|begin_of_text|>', eos='<|eot_id|>'
  )


@pytest.fixture
def write(tmp_path):
  """Writes rows as a jsonl file; returns its path."""

  def write(rows, name='rows.jsonl'):
    path = tmp_path / name
    path.write_text('\n'.join(map(json.dumps, rows)) + '\n')
    return path

  return write
