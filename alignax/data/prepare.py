"""Rows to examples, with a report of what became of every row."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from alignax.data import formats
from alignax.data.drafts import Draft, make_drafts, tokenise
from alignax.data.examples import KINDS, Example, Examples, windows
from alignax.data.report import Report
from alignax.data.rows import RowError, Rows, shorten
from alignax.data.spans import TemplateRefused
from alignax.data.templates import (
  Template,
  adds_bos,
  control_tokens,
  make_template,
  neutralise,
)

_CHUNK = 256  # rows that are tokenised in one call


def prepare(
  rows: Rows | Sequence[dict],
  tokenizer,
  *,
  kind: str,
  length: int,
  format: str | None = None,
  template: str = '',
  template_kw: Mapping | None = None,
  turns: str = 'all',
  on_bad_row: str = 'skip',
  drop_duplicates: bool = False,
  progress: bool | None = None,
) -> tuple[Examples, Report]:
  """Tokenises rows and reports what became of each.

  Conversations are cut at their end: a response that is cut has no end token,
  and none is made up. The candidates of a comparison keep the same prompt. Raw
  text is divided into pieces instead, and nothing of it is lost.

  Args:
    rows: of `load_rows`, or plain dicts.
    tokenizer: a fast tokenizer of transformers.
    kind: 'text', 'pairs', 'rankings', 'unpaired' or 'prompts'.
    length: longest an example may be, in tokens.
    format: format of plain dicts; detected if None.
    template: '' for the tokenizer's own chat template, 'chatml', 'alpaca', or
      Jinja text.
    template_kw: more that the template reads, as `enable_thinking=False`.
    turns: 'all' assistant turns of a conversation are learned, or the 'last';
      of kind 'text' only.
    on_bad_row: 'skip' counts and names malformed rows and rows without a
      target; 'raise' stops at the first.
    drop_duplicates: leave out examples with the tokens of an earlier one.
    progress: show a progress bar; None for only when a person is watching.

  Returns:
    The examples and the report.

  Raises:
    RowError: at the first bad row, if on_bad_row is 'raise'.
    TemplateRefused: the assistant turns cannot be told from the template.
    ValueError: a wrong argument, or not one example is left.
  """
  _check(kind, length, turns, on_bad_row)
  if not getattr(tokenizer, 'is_fast', False):
    raise TypeError(
      f'tokenizer: found {type(tokenizer).__name__}, expected a fast tokenizer '
      'of transformers, as data.load_tokenizer returns'
    )
  formats.check_name(format)
  rows = Rows.of(rows, format=format)
  report = Report(kind, length, dropped_duplicates=drop_duplicates)
  chat = functools.partial(make_template, tokenizer, template, template_kw)
  work = _Work(rows, tokenizer, kind, length, chat, turns, report)
  seen, made = set(), []
  for start in _progress(range(0, len(rows), _CHUNK), progress):
    stop = min(start + _CHUNK, len(rows))
    for example in work.examples(range(start, stop), on_bad_row):
      key = _digest(example)
      if key in seen:
        report.add('duplicates', rows.where(example.row))
        if drop_duplicates:
          continue
      seen.add(key)
      made.append(example)
  report.examples = len(made)
  report.tokens = sum(len(t) for e in made for t in e.tokens)
  report.targets = sum(int(m[1:].sum()) for e in made for m in e.learned)
  if not made:
    raise ValueError(
      f'no example of kind {kind!r} in {len(rows)} rows:\n{report.table()}'
    )
  return Examples(made, kind=kind, rows=rows, weights=rows.weights), report


def report_trained_on(heldout: Examples, training: Examples, report: Report):
  """Counts and names what is held out and trained on too.

  A model has seen the answer: what is measured there is how well it remembers.
  """
  seen = set(map(_digest, training))
  for example in heldout:
    if _digest(example) in seen:
      report.add('trained_on', heldout.rows.where(example.row))


def _check(kind: str, length: int, turns: str, on_bad_row: str) -> None:
  for name, value, allowed in (
    ('kind', kind, KINDS),
    ('turns', turns, ('all', 'last')),
    ('on_bad_row', on_bad_row, ('skip', 'raise')),
  ):
    if value not in allowed:
      raise ValueError(
        f'{name} {value!r}: expected one of {", ".join(allowed)}'
      )
  if turns != 'all' and kind != 'text':
    raise ValueError(
      f"turns {turns!r}: a choice for kind 'text' only; with kind {kind!r} "
      "the prompt ends where learning starts, so leave it at 'all'"
    )
  if length < 2:
    raise ValueError(f'length {length}: expected at least 2 tokens')


@dataclasses.dataclass
class _Work:
  """What every chunk of rows needs; only the report changes."""

  rows: Rows
  tokenizer: object
  kind: str
  length: int
  make_chat: Callable[[], Template]
  turns: str
  report: Report

  def __post_init__(self):
    self.formats = [source.format for source in self.rows.sources]
    self.control = control_tokens(self.tokenizer)
    self.bos = adds_bos(self.tokenizer)

  def examples(self, indices: range, on_bad_row: str) -> list[Example]:
    """The examples of some rows, tokenised in one call."""
    drafts: list[tuple[int, Draft]] = []
    for i in indices:
      self.report.rows += 1
      try:
        drafts += [(i, draft) for draft in self.drafts(i)]
      except RowError as error:
        self.bad('malformed', error.at(self.rows.where(i)), on_bad_row)
      except TemplateRefused as error:
        raise TemplateRefused(f'{self.rows.where(i)}: {error}') from error
    texts = [draft for _, draft in drafts]
    made = tokenise(self.tokenizer, texts, bos=self.bos) if texts else []
    return [
      example
      for (i, draft), encoded in zip(drafts, made)
      for example in self.fitted(i, draft, *encoded, on_bad_row)
    ]

  def drafts(self, i: int) -> list[Draft]:
    row, source = self.rows[i], self.rows.source(i)
    if isinstance(row, RowError):
      raise row
    if not isinstance(row, dict):
      raise RowError(field='(row)', found=shorten(row), expected='an object')
    if self.formats[source] is None:
      name = self.rows.sources[source].name
      self.formats[source] = formats.detect(row, name)
    format = self.formats[source]
    if self.kind == 'prompts' and format in formats.WITH_PROMPT:
      format = 'prompts'
    canon = formats.canonical(row, format)
    canon, spelled = neutralise(canon, self.control)
    if spelled:
      self.report.add('neutralised', self.rows.where(i))
    # Raw text needs no template, so a tokenizer without one will do for it.
    chat = None if 'text' in canon else self.chat
    return make_drafts(canon, self.kind, chat, turns=self.turns)

  @functools.cached_property
  def chat(self) -> Template:
    return self.make_chat()

  def fitted(
    self, i, draft, tokens, learned, merged, on_bad_row
  ) -> list[Example]:
    """One draft's examples, none longer than the length."""
    where, longest = self.rows.where(i), max(map(len, tokens))
    labels = draft.labels | {'row': i, 'source': self.rows.source(i)}
    if problem := _problem(self.kind, tokens, learned, self.length):
      what, error = problem
      return self.bad(what, error.at(where), on_bad_row)
    for what, is_so in (
      ('merged', merged),
      ('unwritten', draft.unwritten),
      ('divided', draft.raw and longest > self.length),
      ('cut', not draft.raw and longest > self.length),
    ):
      if is_so:
        self.report.add(what, where)
    if draft.raw:
      pieces = windows(tokens[0], learned[0], self.length)
      return [Example((t,), (m,), **labels) for t, m in pieces]
    # Copies, so that what is cut off is not kept in memory.
    cut = lambda arrays: tuple(a[: self.length].copy() for a in arrays)
    return [Example(cut(tokens), cut(learned), **labels)]

  def bad(self, what: str, error: RowError, on_bad_row: str) -> list:
    """Counts a row that cannot be used, or stops there."""
    if on_bad_row == 'raise':
      raise error
    self.report.add(what, error.where, str(error))
    return []


def _problem(kind, tokens, learned, length) -> tuple[str, RowError] | None:
  """Why there is nothing to learn from an example, by the name of a count."""
  longest = max(map(len, tokens))
  if kind == 'prompts':
    if longest <= length:
      return None
    return 'too_long', RowError(
      field='prompt', found=f'{longest} tokens', expected=f'at most {length}'
    )
  if not all(m[1:length].any() for m in learned):
    expected = 'an assistant turn to learn'
    if longest > length:
      expected = f'a response that starts within {length} tokens'
  elif len(tokens) == 2 and np.array_equal(*(t[:length] for t in tokens)):
    expected = f'responses that differ within {length} tokens'
  else:
    return None
  return 'no_target', RowError(
    field='response',
    found=f'nothing to learn from in {longest} tokens',
    expected=expected,
  )


def _digest(example: Example) -> bytes:
  hashed = hashlib.blake2b(digest_size=16)
  for tokens in example.tokens:
    hashed.update(len(tokens).to_bytes(8, 'little') + tokens.tobytes())
  labels = (example.ranks, example.desirable, example.category)
  hashed.update(repr(labels).encode())
  return hashed.digest()


def _progress(chunks: range, show: bool | None):
  from tqdm import tqdm

  # With None, tqdm stays silent where no terminal shows it; short work ends
  # before the delay.
  return tqdm(
    chunks,
    desc='preparing data',
    unit=f' x {_CHUNK} rows',
    disable=None if show is None else not show,
    delay=1.0 if show is None else 0.0,
  )
