"""Simulated annotators: who choose between responses with known noise.

They follow Bradley-Terry on the gold score,

    p(a is chosen over b) = σ((total(a) - total(b)) / noise
                              + length_bias · (words(a) - words(b))),

so the best possible accuracy of a reward model is known, and so is what it
would learn that it should not.

See Bradley & Terry 1952; simulated from a gold score as in Gao et al.
(https://arxiv.org/abs/2210.10760).
"""

import math

from alignax.data.synthetic.scorer import gold_score

NOISE = 0.1


def utility(
  row: dict,
  response: str,
  *,
  noise: float = NOISE,
  length_bias: float = 0.0,
  sycophancy: float = 0.0,
) -> float:
  """What an annotator sees in a response, in units of log-odds.

  Args:
    row: an instruction.
    response: the text of a response to it.
    noise: gold score that makes a difference of one in log-odds; 0.1 lets a
      difference of 0.1 be judged rightly 73 % of the time, one of 0.3 95 %.
    length_bias: log-odds for every word: positive, annotators like length.
    sycophancy: log-odds for saying what the user said to believe.
  """
  words = response.split()
  agrees = bool(row['opinion']) and row['opinion'] in words
  return (
    gold_score(row, response)['total'] / noise
    + length_bias * len(words)
    + sycophancy * agrees
  )


def prefer(row: dict, a: str, b: str, *, rng, **bias) -> tuple[int, float]:
  """Has an annotator choose between two responses.

  Args:
    row: an instruction.
    a: the text of one response.
    b: the text of the other.
    rng: anything with `random()` in [0, 1): `random.Random` or numpy's.
    **bias: `noise`, `length_bias` and `sycophancy` of `utility`.

  Returns:
    The index of the chosen one (0 is `a`), and the true probability that `a`
    is chosen.
  """
  p = _sigmoid(utility(row, a, **bias) - utility(row, b, **bias))
  return int(rng.random() >= p), p


def rank(row: dict, responses: list[str], *, rng, **bias) -> list[int]:
  """Has an annotator rank responses (Plackett-Luce): the rank of each, from 1.

  Adding Gumbel noise to the utilities and sorting draws from Plackett-Luce; of
  two responses it is `prefer`.
  """
  noisy = [
    utility(row, x, **bias) - math.log(-math.log(_open(rng))) for x in responses
  ]
  order = sorted(range(len(noisy)), key=lambda i: -noisy[i])
  return [order.index(i) + 1 for i in range(len(noisy))]


def _open(rng):
  # random() can be 0, of which there is no logarithm.
  return max(rng.random(), 1e-12)


def _sigmoid(x):
  return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))
