"""What a set of texts is like: how varied, how repetitive, how often refusing.

Plain functions of texts split into words; nothing here knows a model.
"""

import collections
import math
import re
from collections.abc import Sequence

import numpy as np

Words = Sequence[str]
ORDER = 4  # Longest n-grams of BLEU.
# What declines, in English, at its beginning: after 40 characters it may be
# about anything.
REFUSAL = re.compile(
  r"(i('m| am) (sorry|unable)|sorry|(can ?not|can't|won't) (help|do|assist|say)"
  r'|as an ai)',
  re.I,
)
EARLY = 40


def ngrams(words: Words, n: int) -> list[tuple[str, ...]]:
  return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct(texts: Sequence[Words], n: int) -> float | None:
  """Different n-grams over all n-grams of the texts; None if there are none.

  See Li et al. 2016, section 5 (https://arxiv.org/abs/1510.03055). It falls
  with the number of texts: compare sets of one size.
  """
  found = [gram for words in texts for gram in ngrams(words, n)]
  return len(set(found)) / len(found) if found else None


def self_bleu(texts: Sequence[Words], order: int = ORDER) -> float | None:
  """Mean BLEU of every text with all others as references, in [0, 1].

  1 if every text is in the others, near 0 if none shares anything. Texts
  without words are left out; None if less than two are left.

  See Zhu et al. 2018, section 3 (https://arxiv.org/abs/1802.01886).
  """
  texts = [tuple(words) for words in texts if words]
  if len(texts) < 2:
    return None
  # Most counts of an n-gram in any text, and in any but one: what holds the
  # maximum is what may not be its own reference.
  best = [_two_largest(texts, n) for n in range(1, order + 1)]
  lengths = collections.Counter(map(len, texts))
  scores = []
  for i, words in enumerate(texts):
    lengths[len(words)] -= 1
    others = [k for k, count in lengths.items() if count]
    lengths[len(words)] += 1
    closest = min(others, key=lambda k: (abs(k - len(words)), k))
    matched = [_clipped(words, n, i, top) for n, top in enumerate(best, 1)]
    scores.append(_bleu(words, matched, closest))
  return sum(scores) / len(scores)


def bleu(words: Words, references: Sequence[Words], order: int = ORDER):
  """BLEU of one text, in [0, 1], of n-grams up to `order` or its own length.

    exp(Σ_n log p_n / N) · min(1, exp(1 - r / c))

  p_n is the share of n-grams that are in a reference, each counted at most as
  often as in the reference that has it most; r the length of the reference
  nearest in length (the shorter of two), c the text's. A p_n of 0 counts as
  1 / (2ᵏ · number of n-grams), k being how many were 0 so far.

  See Papineni et al. 2002 (https://aclanthology.org/P02-1040), and for zeros
  Chen & Cherry 2014, method 3 (https://aclanthology.org/W14-3346).
  """
  if not words or not references:
    return 0.0
  matched = []
  for n in range(1, order + 1):
    most = collections.Counter()
    for reference in references:
      most |= collections.Counter(ngrams(reference, n))
    own = collections.Counter(ngrams(words, n))
    matched.append((own & most).total())
  closest = min(map(len, references), key=lambda k: (abs(k - len(words)), k))
  return _bleu(words, matched, closest)


def _bleu(words, matched: Sequence[int], closest: int) -> float:
  logs, zeros = [], 0
  for n, hits in enumerate(matched, 1):
    count = len(words) - n + 1
    if count < 1:
      break
    if not hits:
      zeros += 1
    logs.append(math.log(hits / count if hits else 1 / (2**zeros * count)))
  brevity = min(0.0, 1 - closest / len(words))
  return math.exp(sum(logs) / len(logs) + brevity)


def _two_largest(texts, n: int) -> dict:
  """n-gram -> [(count, text), (count, text)], the largest first."""
  found: dict = {}
  for i, words in enumerate(texts):
    for gram, count in collections.Counter(ngrams(words, n)).items():
      top = sorted([*found.get(gram, ()), (count, i)], reverse=True)
      found[gram] = top[:2]
  return found


def _clipped(words, n: int, i: int, top) -> int:
  """n-grams of text i that others have as well, each as often as they do."""
  total = 0
  for gram, count in collections.Counter(ngrams(words, n)).items():
    others = [most for most, j in top[gram] if j != i]
    total += min(count, others[0]) if others else 0
  return total


def repeated(texts: Sequence[Words], n: int = 3) -> float | None:
  """Mean share of a text's n-grams that it has said before.

    1 - different / all

  Of texts with any; None if there are none. See Welleck et al. 2020, section 6,
  'seq-rep-n' (https://arxiv.org/abs/1908.04319).
  """
  grams = [found for words in texts if (found := ngrams(words, n))]
  shares = [1 - len(set(found)) / len(found) for found in grams]
  return sum(shares) / len(shares) if shares else None


def correlation(xs, ys) -> float | None:
  """Pearson's; None where either is constant, or there are less than three."""
  xs, ys = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
  known = np.isfinite(xs) & np.isfinite(ys)
  xs, ys = xs[known], ys[known]
  if len(xs) < 3 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
    return None
  return float(np.corrcoef(xs, ys)[0, 1])


def refuses(text: str) -> bool:
  """Whether a text begins by declining; by words, so a guess."""
  found = REFUSAL.search(text)
  return found is not None and found.start() < EARLY
