"""Which characters of a rendered conversation the model has to write.

The loss falls on what the model itself produces when it is asked: an assistant
turn with the token that ends it. Headers (`<|im_start|>assistant`) are written
for it, and so is what stands between turns.
"""

from alignax.data.rows import RowError
from alignax.data.templates import Template

WAYS_OUT = (
  "Ways out: template='chatml' or 'alpaca' or Jinja text of your own; mark the "
  'assistant turns of the template with {% generation %}; or '
  "turns='last', which learns the last turn of every conversation only."
)


class TemplateRefused(ValueError):
  """A template from whose text the assistant turns cannot be told."""


def assistant_spans(
  template: Template,
  messages: list[dict],
  tools: list[dict] | None = None,
  *,
  first: int = 0,
) -> tuple[str, list[tuple[int, int]]]:
  """Renders a conversation and finds its assistant turns.

  With t(m) the text of messages m, and h(m) the same made ready for the model
  to speak, turn i is what t(messages[:i+1]) has after h(messages[:i]). This
  holds only if both begin t(messages), which is checked: a template that
  rewrites earlier turns would put the loss on text that no model is asked for.
  A template with `{% generation %}` says itself what is generated.

  Args:
    template: the template.
    messages: the conversation.
    tools: its tools.
    first: only turns from this message on are learned.

  Returns:
    The text and the spans (start, end) in it, each with its end token and
    without the white space that the template puts after that.

  Raises:
    TemplateRefused: the turns cannot be told, with the reason and ways out.
    RowError: the template itself refuses these messages.
  """
  turns = [
    i
    for i, message in enumerate(messages)
    if message['role'] == 'assistant' and i >= first
  ]
  if messages[0]['role'] == 'assistant':
    raise RowError(
      field='messages[0].role',
      found='an assistant turn, which answers nothing',
      expected='a system or user turn first',
    )
  if marked := template.render_spans(messages, tools):
    text, spans = marked
    spans = _marked(template, messages, tools, text, spans, first)
  else:
    text = template.render(messages, tools)
    spans = [_turn(template, messages, tools, text, i) for i in turns]
  for i, (start, end) in zip(turns, spans):
    _check_text(template, text[start:end], i)
  return text, spans


def _check_text(template: Template, turn: str, i: int) -> None:
  """An end alone would teach the model to say nothing."""
  if not turn.removesuffix(_end_token(template, turn)).strip():
    raise RowError(
      field=f'messages[{i}]',
      found=f'a turn of which {template.name} writes no text',
      expected='text, or tool calls and a template that writes them, such as '
      "template='chatml'",
    )


def _end_token(template: Template, turn: str) -> str:
  """The added token that a text ends with, or ''."""
  tokens = template.tokenizer.get_added_vocab()
  return max(filter(turn.endswith, tokens), key=len, default='')


def _turn(template, messages, tools, text: str, i: int) -> tuple[int, int]:
  head = template.render(messages[:i], tools, prompt=True)
  if not text.startswith(head):
    raise TemplateRefused(_why(template, messages, text, head, i, 'start'))
  last = i + 1 == len(messages)
  whole = text if last else template.render(messages[: i + 1], tools)
  if not text.startswith(whole):
    raise TemplateRefused(_why(template, messages, text, whole, i, 'end'))
  content, turn = messages[i]['content'].strip(), whole[len(head) :]
  header = turn[: max(turn.find(content), 0)].strip()
  # Turns may have no generation prompt only if they have no header either.
  if header and head == template.render(messages[:i], tools):
    raise TemplateRefused(
      f'{template.name} ignores add_generation_prompt, so that the model would '
      f'have to write the header of turn {i} itself: {header!r} before the '
      f'response. {WAYS_OUT}'
    )
  return len(head), _without_space(template, text, len(head), len(whole))


def _without_space(template, text: str, start: int, end: int) -> int:
  """End of a turn, before the white space that follows its end token.

  Where no token ends the turn, white space may be what does: it stays.
  """
  stripped = text[start:end].rstrip()
  return start + len(stripped) if _end_token(template, stripped) else end


def _marked(template, messages, tools, text, spans, first):
  """Spans of `{% generation %}`, extended over the end token if it is outside.

  Where a conversation ends with an assistant turn, nothing but its end token
  and white space can follow the span, which tells which token that is.
  """
  turns = [i for i, m in enumerate(messages) if m['role'] == 'assistant']
  if len(spans) != len(turns):
    raise TemplateRefused(
      f'{template.name} marks {len(spans)} assistant turns with '
      f'{{% generation %}} where the conversation has {len(turns)}: it leaves '
      f'turns out, or splits them. {WAYS_OUT}'
    )
  if not turns:
    return []
  whole, ends = template.render_spans(messages[: turns[-1] + 1], tools)
  ending = whole[ends[-1][1] :].strip()
  if ending in template.tokenizer.get_added_vocab():
    more = len(ending)
    spans = [(a, b + more * text.startswith(ending, b)) for a, b in spans]
  return [
    (start, _without_space(template, text, start, end))
    for i, (start, end) in zip(turns, spans)
    if i >= first
  ]


def stop_token(template: Template) -> str | None:
  """The token with which this template ends an assistant turn, if any."""
  turn = {'role': 'assistant', 'content': 'b'}
  messages = [{'role': 'user', 'content': 'a'}, turn]
  text, spans = assistant_spans(template, messages)
  return _end_token(template, text[: spans[-1][1]]) or None


def _why(template, messages, text, prefix, i, edge) -> str:
  n = next(
    (n for n, (a, b) in enumerate(zip(text, prefix)) if a != b),
    min(len(text), len(prefix)),
  )
  if edge == 'start':
    what = 'the text before it when the model is asked for it'
  else:
    what = 'the text up to its end when no turn follows'
  return (
    f'{template.name} cannot be trained on: the {edge} of turn {i} '
    f'(assistant) of {len(messages)} is not in the rendered conversation. '
    f'There is {text[max(0, n - 20) : n + 40]!r}, but {what} has '
    f'{prefix[max(0, n - 20) : n + 40]!r} there: the template rewrites turns '
    f'by what comes after them (dropped thinking, trimmed space), so a loss on '
    f'this text would teach answers to prompts nobody gives. {WAYS_OUT}'
  )
