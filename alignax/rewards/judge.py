"""A local model as a judge: which of two responses it holds to be better.

It is shown both and asked for a letter; what counts are the log-probs of the
letters as its next token, not what it would write. Judges favour a place, so it
is asked in both orders, and the mean is taken (Wang et al. 2023,
https://arxiv.org/abs/2305.17926).
"""

import collections
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from alignax import data, sampling, sharding, train
from alignax.data import formats, templates
from alignax.rewards.combine import ScoreFn
from alignax.rewards.host import texts_of
from alignax.sampling import text

PAIR = """\
Below are a request and two responses to it. Decide which response is better: \
more correct, more helpful, closer to what was asked for.

Request:
{question}

Response A:
{first}

Response B:
{second}

Which response is better? Answer with the letter alone, A or B."""
# (frozen, questions, firsts, seconds) -> P(the first is better), [N]
Prefer = Callable[..., np.ndarray]


def make_prefer(
  judge,
  tokenizer,
  *,
  role: str = 'judge',
  template: str = PAIR,
  labels: Sequence[str] = ('A', 'B'),
  length: int = 1024,
  batch_size: int = 8,
  join=train.separate,
) -> Prefer:
  """Makes `prefer(frozen, questions, firsts, seconds) -> probs [N]`.

    p = ½ (P(A | first, second) + P(B | second, first))

  with P(A) + P(B) = 1. Compiled once; a pair that is too long in one of its
  orders has no preference, NaN.

  Args:
    judge: an `alignax.models.Model`.
    tokenizer: the judge's own, with its chat template.
    role: whose parameters in `frozen` are the judge's.
    template: of what it is asked, with {question}, {first} and {second}.
    labels: what it may answer, each one token: for the first, for the second.
    length: most tokens of what it is asked.
    batch_size: rows that it reads at once.
    join: see `train.make_update`.
  """
  check_template(template)
  answers = [label_token(tokenizer, label) for label in labels]
  encode = make_encode(tokenizer, template)

  @jax.jit
  def first_is_better(frozen, batch):
    _, frozen = join({}, frozen)
    at_end = jnp.arange(length) == length - 1
    batch = batch | {'mask': jnp.broadcast_to(at_end, batch['inputs'].shape)}
    hidden = judge.hidden(frozen[role], batch)
    one, two = (
      judge.head_stats_of(
        frozen[role],
        hidden,
        batch | {'targets': jnp.full_like(batch['inputs'], answer)},
      ).logps[:, -1]
      for answer in answers
    )
    return jax.nn.sigmoid(one - two)

  def ask(frozen, prompts):
    """P(first label) for each; NaN for a prompt that is too long."""
    found = np.full(len(prompts), np.nan, np.float32)
    fits = [i for i, tokens in enumerate(prompts) if len(tokens) <= length]
    for start in range(0, len(fits), batch_size):
      chosen = fits[start : start + batch_size]
      filled = [prompts[i] for i in chosen]
      filled += filled[:1] * (batch_size - len(chosen))  # One shape.
      batch = sampling.left_pad(filled, length=length)
      probs = sharding.to_host(first_is_better(frozen, batch))
      found[chosen] = probs[: len(chosen)]
    return found

  def prefer(frozen, questions, firsts, seconds):
    asked = zip(questions, firsts, seconds)
    swapped = zip(questions, seconds, firsts)
    probs = ask(frozen, [encode(*x) for x in (*asked, *swapped)])
    straight, other = np.split(probs, 2)
    return (straight + 1 - other) / 2

  return prefer


def judge_scores(
  prefer: Prefer, tokenizer, rows: Sequence[dict], *, baseline: str = ''
) -> ScoreFn:
  """Makes the score function of a judge: how likely a response is to win.

  Args:
    prefer: from `make_prefer`.
    tokenizer: the policy's, which decodes its responses.
    rows: of the data set, which the `row` of a rollout counts in.
    baseline: field of a row with the response to win against (text, or messages
      of which the last is taken); '' lets the responses to the same prompt
      compete, each against every other.
  """

  def score_fn(frozen, batch):
    texts, asked = texts_of(batch, tokenizer, rows)
    questions = [question_of(row) for row in asked]
    if baseline:
      others = [response_in(row, baseline) for row in asked]
      scores = prefer(frozen, questions, texts, others)
    else:
      numbers = sharding.to_host(batch['row'])
      scores = tournament(prefer, frozen, questions, texts, numbers)
    return scores, {'too_long': np.isnan(scores).astype(np.float32)}

  return score_fn


def tournament(prefer, frozen, questions, texts, numbers) -> np.ndarray:
  """The mean probability of a win against the others of its prompt, [N]."""
  groups = collections.defaultdict(list)
  for place, number in enumerate(numbers):
    groups[int(number)].append(place)
  pairs = [
    pair for g in groups.values() for pair in itertools.combinations(g, 2)
  ]
  if any(len(g) == 1 for g in groups.values()):
    raise ValueError(
      'A judge compares the responses to a prompt, and one has a single '
      'response: sample several, or set `baseline` to a field of the rows.'
    )
  one, two = np.array(pairs).T
  of = lambda places, values: [values[i] for i in places]
  probs = prefer(frozen, of(one, questions), of(one, texts), of(two, texts))
  won = np.zeros((2, len(texts)), np.float32)
  for places, p in ((one, probs), (two, 1 - probs)):
    told = ~np.isnan(p)
    np.add.at(won[0], places[told], p[told])
    np.add.at(won[1], places[told], 1)
  return np.where(won[1] > 0, won[0] / np.maximum(won[1], 1), np.nan)


def make_encode(tokenizer, template: str):
  """Makes (question, first, second) -> the tokens that the judge reads.

  What the texts spell of control tokens is broken up: a response may not end
  the judge's prompt, and answer in its place.
  """
  control = templates.control_tokens(tokenizer)

  def encode(question, first, second):
    texts = dict(question=question, first=first, second=second)
    texts, _ = templates.neutralise(texts, control)
    turn = {'role': 'user', 'content': template.format(**texts)}
    return text.encode(tokenizer, [turn])

  return encode


def question_of(row: dict) -> str:
  """What a row asks, as text; a longer conversation turn by turn."""
  turns = formats.canonical(row, 'prompts')['prompt']
  if len(turns) == 1:
    return turns[0]['content']
  return '\n\n'.join(f'{turn["role"]}: {turn["content"]}' for turn in turns)


def response_in(row: dict, field: str) -> str:
  """A response that stands in a row, as text."""
  value = row.get(field)
  if isinstance(value, list) and value and 'content' in value[-1]:
    value = value[-1]['content']
  if not isinstance(value, str):
    raise data.RowError(
      field=field, found=repr(value)[:80], expected='a response to win against'
    )
  return value


def label_token(tokenizer, label: str) -> int:
  """The one token of a label."""
  tokens = tokenizer(label, add_special_tokens=False)['input_ids']
  if len(tokens) != 1:
    raise ValueError(
      f'The label {label!r} is {len(tokens)} tokens to the judge, not one: '
      'choose other labels, and a template that names them.'
    )
  return tokens[0]


def check_template(template: str, fields=('question', 'first', 'second')):
  missing = [name for name in fields if f'{{{name}}}' not in template]
  if missing:
    raise ValueError(
      f'The template of the judge lacks {{{missing[0]}}}; it is to have '
      f'{", ".join(f"{{{name}}}" for name in fields)}.'
    )
