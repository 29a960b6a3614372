"""What became of every row, said before training starts."""

import dataclasses

NAMED = 5  # rows of each kind that a table names, unless it is asked for more

WHAT = {
  'malformed': 'malformed rows, skipped',
  'no_target': 'rows without a target, skipped',
  'too_long': 'prompts longer than the length, skipped',
  'duplicates': 'duplicate rows',
  'trained_on': 'rows held out that are trained on as well, kept',
  'cut': 'rows cut to the length',
  'divided': 'documents divided into pieces of the length',
  'merged': 'rows where a token spans the start of a response, not learned',
  'unwritten': 'rows of which the template leaves text or tools out',
  'neutralised': 'rows that spell control tokens, neutralised',
}


@dataclasses.dataclass
class Report:
  """Counts of rows, and those of each kind by file and number.

  Attributes:
    kind: kind of the examples.
    length: longest they may be, in tokens.
    rows: rows read.
    examples: examples made of them.
    tokens: tokens in those.
    targets: tokens that are learned from.
    counts: number of rows by what became of them, keys as in `WHAT`.
    named: `file:row` of each, with the reason.
    dropped_duplicates: whether duplicates were left out.
  """

  kind: str
  length: int
  rows: int = 0
  examples: int = 0
  tokens: int = 0
  targets: int = 0
  counts: dict[str, int] = dataclasses.field(
    default_factory=lambda: dict.fromkeys(WHAT, 0)
  )
  named: dict[str, list[str]] = dataclasses.field(
    default_factory=lambda: {what: [] for what in WHAT}
  )
  dropped_duplicates: bool = False
  _last: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

  def add(self, what: str, where: str, why: str = '') -> None:
    """Counts the row at a place, once however many examples it makes."""
    if self._last.get(what) == where:
      return
    self._last[what] = where
    self.counts[what] += 1
    self.named[what].append(why or where)

  def table(self, *, most: int | None = NAMED) -> str:
    """The report as text, one line a fact.

    Args:
      most: how many rows of each kind to name; None for all.
    """
    lines = [
      (self.rows, 'rows read'),
      (self.examples, f'examples of kind {self.kind}'),
      (self.tokens, f'tokens, at most {self.length} an example'),
    ]
    if self.kind != 'prompts':
      lines.append((self.targets, 'tokens learned from'))
    for what, text in WHAT.items():
      if n := self.counts[what]:
        if what == 'duplicates':
          text += ', dropped' if self.dropped_duplicates else ', kept'
        lines.append((n, text))
        named = self.named[what][:most]
        lines += [('', f'  {where}') for where in named]
        if n > len(named):
          lines.append(('', f'  and {n - len(named)} more'))
    width = max(len(f'{n:,}') for n, _ in lines if n != '')
    show = lambda n: f'{n:>{width},}' if n != '' else ' ' * width
    return '\n'.join(f'{show(n)}  {text}' for n, text in lines)
