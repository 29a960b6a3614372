"""A judge behind an OpenAI-compatible HTTP endpoint.

It reads a request and a response and writes a number, which is the score; or it
reads two responses, in both orders, and writes the letter of the better one.
"""

import concurrent.futures
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

import numpy as np

from alignax.rewards.combine import ScoreFn
from alignax.rewards.host import ScoreTexts, shared_out
from alignax.rewards.judge import (
  Prefer,
  check_template,
  judge_scores,
  question_of,
)
from alignax.rewards.pool import check_timeout

GRADE = """\
Below are a request and a response to it. Rate how correct and helpful the \
response is with a whole number from 1 (useless) to 10 (perfect). You may \
explain yourself in a sentence; end with the number in double brackets, as \
[[5]].

Request:
{question}

Response:
{response}"""
CHOOSE = """\
Below are a request and two responses to it. Decide which response is better: \
more correct, more helpful, closer to what was asked for. You may explain \
yourself in a sentence; end with the letter in double brackets, as [[A]] or \
[[B]].

Request:
{question}

Response A:
{first}

Response B:
{second}"""
LETTER = r'\[\[\s*([AB])\s*\]\]'
NUMBER = r'\[\[\s*(-?\d+(?:\.\d+)?)\s*\]\]'
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
REFUSED = (401, 403, 404)  # No use to go on asking.
LONGEST_WAIT = 60.0
log = logging.getLogger(__name__)
Ask = Callable[[Sequence[str], Callable[..., float | str]], np.ndarray]


class EndpointError(RuntimeError):
  """The endpoint refuses what the config says."""


def endpoint_scores(
  *,
  template: str = GRADE,
  pattern: str = NUMBER,
  least: float = 1.0,
  most: float = 10.0,
  **ask_kw,
) -> ScoreTexts:
  """Makes `score_texts` (see `host.on_host`) of an endpoint.

  A response that it has no readable score for, whatever the reason, has none
  here either: it is counted in the part 'failed', and the first is logged.

  Args:
    template: of what it is asked, with {question} and {response}.
    pattern: regular expression whose first group, or all of it where it has
      none, is the score; the last match in the reply counts.
    least, most: the range of scores; what lies outside is no score.
    **ask_kw: model, base_url and more, see `make_ask`.
  """
  check_template(template, ('question', 'response'))
  ask = make_ask(**ask_kw)
  wanted = re.compile(pattern)

  def score_texts(rows, texts):
    scores = ask(
      [
        template.format(question=question_of(row), response=text)
        for row, text in zip(rows, texts)
      ],
      lambda reply: number_in(reply, wanted, least, most),
    )
    return scores, {'failed': np.isnan(scores).astype(np.float32)}

  return score_texts


def endpoint_prefer(
  *, template: str = CHOOSE, pattern: str = LETTER, **ask_kw
) -> Prefer:
  """Makes `prefer` (see `judge.make_prefer`) of an endpoint.

  It is asked in both orders: 1 where it prefers the first response in both, ½
  where it prefers a place. A pair that it gives no readable letter to in one of
  them has no preference, NaN, and the first is logged.

  Args:
    template: of what it is asked, with {question}, {first} and {second}.
    pattern: as for `endpoint_scores`; it finds the letter, A or B.
    **ask_kw: model, base_url and more, see `make_ask`.
  """
  check_template(template)
  ask = make_ask(**ask_kw)
  wanted = re.compile(pattern)

  def prefer(frozen, questions, firsts, seconds):
    del frozen
    asked = zip(questions, firsts, seconds)
    swapped = zip(questions, seconds, firsts)
    texts = [
      template.format(question=question, first=first, second=second)
      for question, first, second in (*asked, *swapped)
    ]
    # Every host asks its share: an endpoint may answer twice unlike.
    own, gather = shared_out(len(texts))
    found = gather(ask(texts[own], lambda reply: letter_in(reply, wanted)))
    straight, other = np.split(found, 2)
    return (straight + 1 - other) / 2

  return prefer


def endpoint_judge_scores(
  prefer: Prefer, tokenizer, rows, *, baseline: str = ''
) -> ScoreFn:
  """`judge_scores` of `endpoint_prefer`: what has no score has failed."""
  of_judge = judge_scores(prefer, tokenizer, rows, baseline=baseline)

  def score_fn(frozen, batch):
    scores, _ = of_judge(frozen, batch)
    return scores, {'failed': np.isnan(scores).astype(np.float32)}

  return score_fn


def make_ask(
  *,
  model: str,
  base_url: str = '',
  api_key_env: str = 'OPENAI_API_KEY',
  max_tokens: int = 256,
  timeout: float = 60.0,
  retries: int = 4,
  backoff: float = 1.0,
  workers: int = 8,
) -> Ask:
  """Makes (texts, read) -> the numbers read from the replies, NaN for none.

  Args:
    model: the endpoint's name of it.
    base_url: up to and with /v1; '' reads the variable OPENAI_BASE_URL.
    api_key_env: the environment variable that holds the key, if one is needed.
      A key itself has no place in a config, which is written to disk.
    max_tokens: of the reply.
    timeout: seconds of one try.
    retries: further tries where it is busy, fails or cannot be reached.
    backoff: seconds before the second try, doubled before each of the next;
      unless it says itself how long to wait.
    workers: requests at a time.
  """
  url = check_url(base_url) + '/chat/completions'
  check_timeout(timeout)

  def one(text):
    body = {
      'model': model,
      'messages': [{'role': 'user', 'content': text}],
      'max_tokens': max_tokens,
      'temperature': 0,
    }
    return post(
      url, body, os.environ.get(api_key_env, ''),
      timeout=timeout, retries=retries, backoff=backoff,
    )  # fmt: skip

  def ask(texts, read):
    with concurrent.futures.ThreadPoolExecutor(workers) as threads:
      found = [read(reply) for reply in threads.map(one, texts)]
    for why in [x for x in found if isinstance(x, str)][:1]:
      log.warning('Endpoint %s: %s', url, why)
    numbers = [np.nan if isinstance(x, str) else x for x in found]
    return np.array(numbers, np.float32)

  return ask


def post(url, body, key, *, timeout, retries, backoff) -> dict | str:
  """The endpoint's answer, or why there is none."""
  request = urllib.request.Request(url, json.dumps(body).encode())
  request.add_header('Content-Type', 'application/json')
  if key:  # Where it is redirected to, nobody needs the key.
    request.add_unredirected_header('Authorization', f'Bearer {key}')
  for attempt in range(retries + 1):
    wait = backoff * 2**attempt
    try:
      with urllib.request.urlopen(request, timeout=timeout) as reply:
        return json.load(reply)
    except urllib.error.HTTPError as error:
      why = f'HTTP {error.code}: {text_of(error)}'
      if error.code in REFUSED:
        raise EndpointError(f'{url} answers {why}') from error
      if error.code not in RETRIED:
        return why
      wait = seconds(error.headers.get('Retry-After'), wait)
    except (OSError, http.client.HTTPException, ValueError) as error:
      why = f'{type(error).__name__}: {error}'
    if attempt < retries:
      time.sleep(min(wait, LONGEST_WAIT))
  return f'{why} (after {retries + 1} tries)'


def text_of(error: urllib.error.HTTPError) -> str:
  """How an error begins; the connection may be lost before it is read."""
  try:
    return error.read(200).decode(errors='replace')
  except (OSError, http.client.HTTPException) as lost:
    return f'its text was lost, {type(lost).__name__}'


def number_in(reply, pattern: re.Pattern, least, most) -> float | str:
  """The score in an answer, or why there is none."""
  match, text = match_in(reply, pattern)
  if match is None:
    return text
  try:
    score = float(match)
  except ValueError:
    return f'{match!r}, which is no number, in its reply: {text!r:.200}'
  if not least <= score <= most:
    return f'a score of {score:g}, not from {least:g} to {most:g}'
  return score


def letter_in(reply, pattern: re.Pattern) -> float | str:
  """Whether the letter in an answer is the first, or why there is none."""
  match, text = match_in(reply, pattern)
  if match is None:
    return text
  if match.upper() not in ('A', 'B'):
    return f'{match!r}, which is not A or B, in its reply: {text!r:.200}'
  return float(match.upper() == 'A')


def match_in(reply, pattern: re.Pattern) -> tuple[str | None, str]:
  """The last match in an answer and its text; or None, and why."""
  if isinstance(reply, str):
    return None, reply
  try:
    text = reply['choices'][0]['message']['content'] or ''
    found = list(pattern.finditer(text))
  except (KeyError, IndexError, TypeError):
    return None, f'no message in its answer: {reply!r:.200}'
  match = found[-1][1 if pattern.groups else 0] if found else None
  if match is None:  # Also of a group that took no part.
    return None, f'no score in its reply: {text!r:.200}'
  return match, text


def seconds(text: str | None, otherwise: float) -> float:
  """Of a Retry-After header; dates, which it may also hold, are not read."""
  try:
    return max(float(text), 0.0)
  except (TypeError, ValueError):
    return otherwise


def check_url(base_url: str) -> str:
  url = base_url or os.environ.get('OPENAI_BASE_URL', '')
  if not url.startswith(('http://', 'https://')):
    raise ValueError(
      f'base_url is {url!r}; give the address of the endpoint, as '
      'http://localhost:8000/v1, there or in the variable OPENAI_BASE_URL.'
    )
  return url.rstrip('/')
