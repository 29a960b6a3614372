"""Checkers: functions `(row, response, **arguments) -> number or numbers`.

One of these, or one of your own by its dotted name, is a reward of kind
'checker'. They are plain Python on text, called in processes of their own. Of
several numbers by name, 'total' is the score unless a config says otherwise.
"""

import fractions
import logging
import re

from alignax.rewards.ifeval import ifeval

__all__ = ['exact', 'format', 'gold', 'ifeval', 'math', 'number']


def exact(
  row: dict, response: str, *, field: str = 'answer', ignore_case: bool = False
) -> float:
  """Whether the final answer is, word for word, that of the row.

  Args:
    row: its `field` holds the right answer, or several of them.
    response: the text; `final_answer` is taken from both.
    field: name of it.
    ignore_case: whether 'Paris' is 'paris'.
  """
  form = lambda text: ' '.join(final_answer(str(text)).split())
  if ignore_case:
    form = lambda text, form=form: form(text).casefold()
  given = form(response)
  return float(any(given == form(answer) for answer in _answers(row, field)))


def number(
  row: dict, response: str, *, field: str = 'answer', tolerance: float = 0.0
) -> float:
  """Whether the final answer is the number of the row: 0.5, 1/2 and 50 %.

  The last number counts where no answer is marked. Computed with fractions, so
  that 0.1 is a tenth.

  Args:
    row: its `field` holds the number, or a text that ends in it (GSM8K).
    response: the text.
    field: name of it.
    tolerance: largest difference, relative to the right answer.
  """
  given = to_number(response)
  for answer in _answers(row, field):
    wanted = to_number(str(answer))
    if wanted is None:
      raise ValueError(f'{field} is {answer!r}, which holds no number')
    allowed = abs(wanted) * fractions.Fraction(tolerance)
    if given is not None and abs(given - wanted) <= allowed:
      return 1.0
  return 0.0


def math(row: dict, response: str, *, field: str = 'answer') -> float:
  """Whether the answer is mathematically that of the row: √12 and 2√3.

  By math-verify (`pip install 'alignax[math]'`); for numbers alone, `number`
  does without.

  Args:
    row: its `field` holds the right answer, as LaTeX or plain.
    response: the text; LaTeX in it stands in $...$ or \\boxed{...}.
    field: name of it.
  """
  math_verify = need_math_verify()
  # The pool has a limit of its own, which also holds where no signal comes.
  logging.getLogger('math_verify').setLevel(logging.ERROR)
  given = math_verify.parse(response, parsing_timeout=None)
  for answer in _answers(row, field):
    answer = str(answer)
    marked = answer if re.search(r'\$|\\boxed|\\\(', answer) else f'${answer}$'
    wanted = math_verify.parse(marked, parsing_timeout=None)
    if math_verify.verify(wanted, given, timeout_seconds=None):
      return 1.0
  return 0.0


def format(
  row: dict, response: str, *, tags=('think', 'answer'), pattern: str = ''
) -> float:
  """Whether a response has a form, whatever it says.

  Args:
    row: not read.
    response: the text.
    tags: it is these and nothing else, once each and in this order:
      <think>...</think><answer>...</answer>.
    pattern: a regular expression for the whole of it, instead of tags.
  """
  del row
  text = response.strip()
  if pattern:
    return float(re.fullmatch(pattern, text, re.DOTALL) is not None)
  if any(text.count(f'<{t}>') != 1 or text.count(f'</{t}>') != 1 for t in tags):
    return 0.0
  form = r'\s*'.join(f'<{tag}>(.+?)</{tag}>' for tag in tags)
  found = re.fullmatch(form, text, re.DOTALL)
  return float(bool(found) and all(part.strip() for part in found.groups()))


def gold(row: dict, response: str) -> dict[str, float]:
  """The gold score of the synthetic world."""
  from alignax.data import synthetic

  return synthetic.gold_score(row, response)


def final_answer(text: str) -> str:
  r"""What a text gives as its answer, or all of it.

  The last \boxed{...}, else the last <answer>...</answer>, else what follows
  the last ####.
  """
  boxed = text.rfind(r'\boxed{')
  if boxed >= 0:
    start = boxed + len(r'\boxed{')
    end = closing_brace(text, start)
    if end is not None:
      return text[start:end].strip()
  tagged = re.findall(r'<answer>(.*?)</answer>', text, re.DOTALL)
  if tagged:
    return tagged[-1].strip()
  return text.rpartition('####')[2].strip()


def closing_brace(text: str, start: int) -> int | None:
  """Where the brace closes that opens before `start`."""
  depth = 1
  for i in range(start, len(text)):
    depth += {'{': 1, '}': -1}.get(text[i], 0)
    if depth == 0:
      return i
  return None


NUMBER = re.compile(
  r'(?P<sign>(?<![\w)])-\s?)?(?:'
  r'\\[dt]?frac\{(?P<above>\d+)\}\{(?P<below>\d+)\}'
  r'|\$?(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<point>\.\d+)?'
  r'(?:\s?/\s?(?P<over>\d+))?)(?P<percent>\s?\\?%)?'
)


def to_number(text: str) -> fractions.Fraction | None:
  """The last number of a text's final answer; None if there is none."""
  found = None
  for match in NUMBER.finditer(final_answer(text)):
    value = _value(match)
    found = found if value is None else value
  return found


def _value(match) -> fractions.Fraction | None:
  part = match.groupdict()
  if part['above']:
    above, below = part['above'], part['below']
  elif part['whole'] or part['point']:
    above = (part['whole'] or '0').replace(',', '') + (part['point'] or '')
    below = part['over'] or '1'
  else:
    return None
  if not int(below):
    return None
  value = fractions.Fraction(above) / int(below)
  value = -value if part['sign'] else value
  return value / 100 if part['percent'] else value


def need_math_verify():
  """The package, or an error that says how to get it."""
  try:
    import math_verify
  except ModuleNotFoundError as error:
    if error.name != 'math_verify':
      raise
    raise ModuleNotFoundError(
      "The checker 'math' needs math-verify: pip install 'alignax[math]'; "
      "or take 'number', which reads numbers and fractions."
    ) from None
  return math_verify


def _answers(row: dict, field: str) -> list:
  if field not in row:
    raise ValueError(f'the row has no {field!r}, but {sorted(row)}')
  found = row[field]
  return found if isinstance(found, list) else [found]
