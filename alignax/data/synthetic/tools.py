"""Conversations in which the assistant calls a tool and reads what it says.

<|system|>add count ...<|end|><|user|>what is 3 + 4 ?<|end|>
<|assistant|>[ add 3 4 ]<|end|><|system|>7<|end|>
<|assistant|>the answer is 7 .<|end|>
"""

import random

from alignax.data.synthetic.instructions import instruction

# Families that a tool solves: those whose names are words of the world.
TOOLS = ('add', 'count', 'largest', 'reverse', 'smallest', 'sort')
SPECS = [
  {
    'type': 'function',
    'function': {
      'name': name,
      'parameters': {
        'type': 'object',
        'properties': {'words': {'type': 'string'}},
        'required': ['words'],
      },
    },
  }
  for name in TOOLS
]


def tool_conversation(rng: random.Random, *, ask: dict, **_) -> dict:
  """A call, the tool's answer and the assistant's; whatever tasks are asked
  for, only those of `TOOLS` are drawn."""
  row = instruction(rng, **ask | {'tasks': TOOLS})
  call = {'name': row['task'], 'arguments': {'words': ' '.join(_given(row))}}
  messages = [
    *row.pop('prompt'),
    {
      'role': 'assistant',
      'content': '',
      'tool_calls': [{'type': 'function', 'function': call}],
    },
    {'role': 'tool', 'content': row['answer']},
    {'role': 'assistant', 'content': f'the answer is {row["answer"]} .'},
  ]
  return {'messages': messages, 'tools': SPECS, **row}


def tool_score(row: dict, response: str) -> dict[str, float]:
  """Scores the first turn of the assistant, which is to be a call.

  Args:
    row: a tool conversation.
    response: the text of the turn, as the world's template writes calls.

  Returns:
    tool: 1 if the right tool is called.
    total: 1 if it is called with the right words, too.
  """
  words = response.split()
  right = words[:2] == ['[', row['task']]
  whole = words == ['[', row['task'], *_given(row), ']']
  return {'tool': float(right), 'total': float(whole)}


def _given(row: dict) -> list[str]:
  """The words that the task is about, in the order of the request."""
  return row['key'].replace('|', ' ').split()[1:]
