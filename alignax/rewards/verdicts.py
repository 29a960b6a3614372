"""From a checker's verdicts to scores; and what becomes of its failures."""

import collections
import logging
from collections.abc import Iterable, Mapping

import numpy as np

from alignax.rewards.host import ScoreTexts
from alignax.rewards.pool import CheckerError, Pool, Verdict

log = logging.getLogger(__name__)


def checker_scores(
  pool: Pool, *, entry: str = 'total', on_failure: float | None = None
) -> ScoreTexts:
  """Makes `score_texts` (see `host.on_host`) of a pool of checkers.

  A response on which the checker fails, or that it gives no finite number, is
  counted in the part 'failed'; the first of every kind is logged.

  Args:
    pool: of the checker.
    entry: which of several numbers is the score; the others are only logged.
    on_failure: the score of a response on which the checker failed; None gives
      it no score, so that nothing is learned from it.
  """
  told = set()

  def score_texts(rows, texts):
    verdicts = [judged(v, entry) for v in pool.check(zip(rows, texts))]
    for verdict, text in zip(verdicts, texts):
      if verdict.failure and verdict.failure not in told:
        told.add(verdict.failure)
        log.warning(
          'Checker %s %s: %s, on %.200r', pool.checker, *verdict[1:], text
        )
    given = np.nan if on_failure is None else on_failure
    scores = [v.numbers.get(entry, given) for v in verdicts]
    parts = by_name(v.numbers for v in verdicts)
    parts.pop(entry, None)
    parts['failed'] = np.array([bool(v.failure) for v in verdicts], np.float32)
    return np.array(scores, np.float32), parts

  return score_texts


def judged(verdict: Verdict, entry: str) -> Verdict:
  """A failure, where the numbers lack the one that counts."""
  if verdict.failure:
    return verdict
  value = verdict.numbers.get(entry)
  if value is None:
    known = ', '.join(map(repr, verdict.numbers))
    raise CheckerError(
      f'The checker returns {known or "no number"}, but no {entry!r}: name the '
      "score 'total', or set `entry` to what is the score."
    )
  if not np.isfinite(value):
    return Verdict({}, 'not finite', f'{entry} is {value}')
  return verdict


def by_name(numbers: Iterable[Mapping]) -> dict[str, np.ndarray]:
  """Numbers of every response, by name; NaN where a response has none."""
  numbers = list(numbers)
  names = collections.ChainMap(*numbers) if numbers else ()
  return {
    name: np.array([n.get(name, np.nan) for n in numbers], np.float32)
    for name in sorted(names)
  }
