"""Chat templates: the tokenizer's own, or a built-in one.

A template is Jinja text, rendered by transformers in its sandbox. It writes
the control tokens; a user's text must not. Where a text holds the spelling of
a control token (`<|im_end|>`), `neutralise` puts a space behind its first
character: it stays readable, cannot end a turn, and is counted in the report.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from alignax.data.rows import RowError

CHATML = (
  "{{ bos }}{% set listed = '<tools>\\n' + (tools | tojson) + '\\n</tools>' "
  "if tools else '' %}"
  "{% if tools and messages and messages[0]['role'] != 'system' %}"
  "{{ '<|im_start|>system\\n' + listed + '<|im_end|>\\n' }}{% endif %}"
  '{% for message in messages %}'
  "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
  "{% if tools and loop.first and message['role'] == 'system' %}"
  "{{ '\\n\\n' + listed }}{% endif %}"
  "{% for call in message['tool_calls'] or [] %}"
  "{{ '\\n' if message['content'] or not loop.first else '' }}"
  "{{ '<tool_call>\\n' + (call['function'] | tojson) + '\\n</tool_call>' }}"
  '{% endfor %}'
  "{{ '<|im_end|>\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ALPACA = (
  "{{ bos }}{% if messages and messages[0]['role'] == 'system' %}"
  "{{ messages[0]['content'] + '\\n\\n' }}{% else %}"
  "{{ 'Below is an instruction that describes a task. Write a response that "
  "appropriately completes the request.\\n\\n' }}{% endif %}"
  "{% for message in messages %}{% if message['role'] == 'user' %}"
  "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
  "{% elif message['role'] == 'assistant' %}"
  "{{ '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}"
  "{% elif message['role'] != 'system' %}{{ raise_exception('the alpaca "
  "template has no place for a turn of role ' + message['role']) }}"
  '{% endif %}{% endfor %}'
  "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)
BUILT_IN = {'chatml': CHATML, 'alpaca': ALPACA}
_NEEDS = {'chatml': ('<|im_start|>', '<|im_end|>'), 'alpaca': ()}
_GENERATION = re.compile(r'\{%-?\s*generation\s*-?%\}')


@dataclasses.dataclass(frozen=True)
class Template:
  """A Jinja template together with the tokenizer it is for.

  Attributes:
    tokenizer: the transformers tokenizer.
    name: what error messages call it.
    jinja: its text; None if the tokenizer's own is to be chosen by transformers
      (some have one for chats and one for tools).
    bos: text of the beginning token where the tokenizer puts one itself.
    more: other variables that the template reads.
  """

  tokenizer: Any
  name: str
  jinja: str | None
  bos: str
  more: Mapping = dataclasses.field(default_factory=dict)

  def render(self, messages, tools=None, *, prompt: bool = False) -> str:
    """Text of a conversation; with `prompt`, ready for the model to speak."""
    return self._render(messages, tools, add_generation_prompt=prompt)[0][0]

  def render_spans(self, messages, tools=None):
    """Text and the spans that `{% generation %}` marks; None without it."""
    if not _GENERATION.search(self._text(tools)):
      return None
    texts, spans = self._render(
      messages, tools, return_assistant_tokens_mask=True
    )
    return texts[0], [tuple(span) for span in spans[0]]

  def _text(self, tools) -> str:
    return self.jinja or self.tokenizer.get_chat_template(None, tools)

  def _render(self, messages, tools, **kw):
    import jinja2
    from transformers.utils import chat_template_utils

    try:
      return chat_template_utils.render_jinja_template(
        [messages],
        tools=tools,
        chat_template=self._text(tools),
        bos=self.bos,
        **(self.tokenizer.special_tokens_map | dict(self.more)),
        **kw,
      )
    except jinja2.TemplateSyntaxError as e:
      raise ValueError(f'{self.name} is not valid Jinja: {e}') from e
    except (jinja2.TemplateError, TypeError) as e:
      raise RowError(
        field='messages',
        found=f'turns {[m["role"] for m in messages]}',
        expected=f'turns that {self.name} can render; it says: {e}',
      ) from e


def make_template(
  tokenizer, name: str = '', more: Mapping | None = None
) -> Template:
  """The tokenizer's own template ('') or 'chatml', 'alpaca' or Jinja text."""
  bos = tokenizer.bos_token if adds_bos(tokenizer) else ''
  make = lambda name, jinja: Template(tokenizer, name, jinja, bos, more or {})
  if not name:
    if not tokenizer.chat_template:
      raise ValueError(
        'the tokenizer has no chat template; pass template= one of '
        f'{", ".join(BUILT_IN)} or Jinja text, or put a chat_template into its '
        'tokenizer_config.json'
      )
    return make("the tokenizer's template", None)
  if name in BUILT_IN:
    _check_tokens(tokenizer, name)
    return make(f'template {name!r}', BUILT_IN[name])
  if '{' not in name:
    raise ValueError(
      f'template {name!r} is unknown; expected {", ".join(BUILT_IN)}, Jinja '
      "text, or '' for the tokenizer's own"
    )
  return make('the given template', name)


def adopt_template(tokenizer, name: str) -> None:
  """Makes a template the tokenizer's own: it is stored and exported with it.

  Whoever loads the model then asks it as it was trained.
  """
  template = make_template(tokenizer, name)
  if template.jinja is not None:
    # Others do not pass `bos`: here it is what this tokenizer needs.
    bos = '{{ bos_token }}' if template.bos else ''
    tokenizer.chat_template = template.jinja.replace('{{ bos }}', bos)


def _check_tokens(tokenizer, name: str) -> None:
  missing = [t for t in _NEEDS[name] if t not in tokenizer.get_added_vocab()]
  if missing:
    raise ValueError(
      f'template {name!r} needs the tokens {missing}, which this tokenizer '
      "does not have; pass template='alpaca', which needs an end token only, "
      'or another Jinja text, or add the tokens to tokenizer and model'
    )
  if name == 'alpaca' and not tokenizer.eos_token:
    raise ValueError(
      "template 'alpaca' ends a response with the tokenizer's eos_token, and "
      'this tokenizer has none; set it in tokenizer_config.json'
    )


def adds_bos(tokenizer) -> bool:
  """Whether the tokenizer itself puts its beginning token before a text."""
  ids = tokenizer('a')['input_ids']
  return tokenizer.bos_token_id is not None and (
    ids[:1] == [tokenizer.bos_token_id]
  )


def control_tokens(tokenizer) -> re.Pattern | None:
  """Matches the spelling of any token that is not plain text.

  Tokens that are added but not special (`<think>`, `<tool_call>`) are left
  alone: models write them, so they occur in responses.
  """
  decoder = tokenizer.added_tokens_decoder.values()
  special = {t.content for t in decoder if t.special}
  special |= set(tokenizer.all_special_tokens)
  breakable = (token for token in special if len(token) > 1)
  longest_first = sorted(breakable, key=len, reverse=True)
  if not longest_first:
    return None
  return re.compile('|'.join(map(re.escape, longest_first)))


def neutralise(value, control: re.Pattern | None):
  """A row whose texts spell no control token, and how many did."""
  if isinstance(value, str):
    if control is None or not control.search(value):
      return value, 0
    text, n = control.subn(lambda m: f'{m[0][0]} {m[0][1:]}', value)
    # Breaking one may bring another to light.
    again, more = neutralise(text, control)
    return again, n + more
  if isinstance(value, dict):
    keys, parts = value.keys(), value.values()
  elif isinstance(value, list):
    keys, parts = None, value
  else:
    return value, 0
  pairs = [neutralise(part, control) for part in parts]
  n = sum(count for _, count in pairs)
  if not n:
    return value, 0
  parts = [part for part, _ in pairs]
  return (parts if keys is None else dict(zip(keys, parts))), n
