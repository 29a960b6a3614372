"""The page and its sections of words, tables and samples."""

import datetime
import html
import importlib.resources
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SHOWN_SAMPLES = 8  # The rest is folded away.


class Section(NamedTuple):
  """A part of a page: its heading, and what is under it."""

  title: str
  html: str


def write(path, title: str, *sections: Section, lead: str = '') -> pathlib.Path:
  """Writes a page.

  Args:
    path: of the file.
    title: its heading.
    *sections: from top to bottom.
    lead: a sentence or two under the heading.

  Returns:
    The path, absolute.
  """
  template = importlib.resources.files('alignax.report') / 'page.html'
  slots = {
    'title': escape(title),
    'lead': f'<p class="lead">{escape(lead)}</p>' if lead else '',
    'links': ''.join(
      f'<a href="#{anchor(s.title)}">{escape(s.title)}</a>' for s in sections
    ),
    'sections': '\n'.join(map(_wrapped, sections)),
    'date': f'{datetime.datetime.now():%Y-%m-%d %H:%M}',
  }
  page = re.sub(
    r'\{\{ (\w+) \}\}', lambda m: slots[m[1]], template.read_text('utf-8')
  )
  path = pathlib.Path(path).absolute()
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(page, encoding='utf-8')
  return path


def _wrapped(section: Section) -> str:
  return (
    f'<section id="{anchor(section.title)}"><h2>{escape(section.title)}</h2>\n'
    f'{section.html}\n</section>'
  )


def text(title: str, *paragraphs: str) -> Section:
  """Paragraphs of plain text."""
  return Section(title, ''.join(f'<p>{escape(p)}</p>' for p in paragraphs))


def table(
  title: str,
  rows: Sequence[Mapping[str, Any]],
  *,
  columns: Sequence[str] | None = None,
  note: str = '',
  foot: str = '',
) -> Section:
  """A table that sorts by a click on a heading.

  Args:
    title: the heading.
    rows: cells by column: text, a number, an `Estimate`, or None. Of a mean
      that has `seeds`, and fewer than those in it, so much is said.
    columns: which, in order; all that any row has if not given.
    note: a sentence under the heading.
    foot: one under the table.
  """
  if columns is None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
  head = ''.join(f'<th scope="col">{escape(_broken(c))}</th>' for c in columns)
  body = ''.join(
    f'<tr>{"".join(_cell(row.get(c), i) for i, c in enumerate(columns))}</tr>\n'
    for row in rows
  )
  return Section(
    title,
    f'{_note(note)}<div class="scroll"><table class="sortable"><thead><tr>'
    f'{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    f'{_note(foot)}',
  )


def _broken(name: str) -> str:
  """A name that may break behind its slashes, without a width of its own."""
  return name.replace('/', '/\u200b').replace('_', '_\u200b')


def _cell(value, column: int) -> str:
  tag = 'th scope="row"' if column == 0 else 'td'
  end = tag.split()[0]
  if missing(value):
    return f'<{tag} class="missing" title="not measured">–</{end}>'
  if isinstance(value, str):
    return f'<{tag}>{escape(value)}</{end}>'
  if isinstance(value, bool | int | float):
    sort = str(value).replace('inf', 'Infinity')  # As JavaScript reads it.
    return f'<{tag} class="number" data-sort="{sort}">{number(value)}</{end}>'
  text, interval = estimate(*value[:3])
  said = [interval, part(value)]
  more = ''.join(f'<small>{words}</small>' for words in said if words)
  return (
    f'<{tag} class="number" data-sort="{value[0]}" title="n = {value[3]}">'
    f'{text}{more}</{end}>'
  )


def samples(
  title: str, rows: Sequence[Mapping[str, Any]], *, note: str = ''
) -> Section:
  """Responses to the same prompts side by side.

  Args:
    title: the heading.
    rows: each with `prompt`, `responses` by name (of a run or stage) and,
      where known, `scores` by the same names: a number, or numbers by name.
    note: a sentence under the heading.
  """
  cards = [_card(row) for row in rows]
  shown, folded = cards[:SHOWN_SAMPLES], cards[SHOWN_SAMPLES:]
  more = ''
  if folded:
    more = (
      f'<details><summary>{len(folded)} more</summary>{"".join(folded)}'
      '</details>'
    )
  return Section(title, f'{_note(note)}{"".join(shown)}{more}')


def _card(row) -> str:
  scores = row.get('scores') or {}
  columns = ''.join(
    f'<div class="response"><h4>{escape(name)}{_score(scores.get(name))}</h4>'
    f'<pre>{escape(response) or "<i>nothing</i>"}</pre></div>'
    for name, response in row['responses'].items()
    if response is not None
  )
  return (
    f'<article class="sample"><pre class="prompt">{escape(row["prompt"])}</pre>'
    f'<div class="responses">{columns}</div></article>'
  )


def _score(score) -> str:
  if missing(score):
    return ''
  if not isinstance(score, Mapping):
    return f'<span class="score">{number(score)}</span>'
  return ''.join(
    f'<span class="score">{escape(name)} {number(value)}</span>'
    for name, value in score.items()
    if not missing(value)
  )


def _note(note: str) -> str:
  return f'<p class="note">{escape(note)}</p>' if note else ''


def missing(value) -> bool:
  """Whether there is nothing to show."""
  if value is None:
    return True
  if isinstance(value, tuple):
    return missing(value[0])
  return isinstance(value, float) and math.isnan(value)


def number(value) -> str:
  """A number as people read it: 4 figures, no exponent where none helps."""
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, int) or (
    math.isfinite(value) and value == int(value) and abs(value) < 1e15
  ):
    return f'{int(value):,}'
  if 1e-3 <= abs(value) < 1e5:
    return f'{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}'
  return f'{value:.2e}'


def estimate(mean: float, low: float, high: float) -> tuple[str, str]:
  """A mean and its interval, to the figures that the interval allows."""
  if missing(low) or low == high:
    return number(mean), ''
  decimals = max(0, 1 - math.floor(math.log10(high - low)))
  if decimals > 4 and not low <= 0 <= high:
    return number(mean), f'{number(low)} to {number(high)}'
  decimals = min(decimals, 4)
  # Adding zero takes the sign off what was rounded to it.
  shown = lambda x: f'{round(x, decimals) + 0.0:,.{decimals}f}'
  mean, low, high = map(shown, (mean, low, high))
  return mean, f'{low} to {high}' if low != high else ''


def part(value) -> str:
  """'2 of 3 seeds', of a mean over fewer than there are; '' of all others."""
  seeds = getattr(value, 'seeds', None)
  return f'{value.n} of {seeds} seeds' if seeds else ''


def escape(value) -> str:
  return html.escape(str(value))


def anchor(title: str) -> str:
  return re.sub(r'\W+', '-', title.lower()).strip('-')


def to_json(value) -> str:
  """JSON that may stand in an attribute."""
  return html.escape(json.dumps(value, separators=(',', ':')))
