"""An endpoint on this machine, which is busy, slow, wrong or refuses."""

import http.server
import json
import re
import threading
import time

import numpy as np
import pytest

from alignax import rewards
from alignax.rewards import endpoint as endpoint_lib


class Server:
  """Answers by what stands in the request, and keeps what it was sent."""

  def __init__(self):
    self.requests, self.headers, self.tries = [], [], {}
    handler = type('Handler', (Handler,), {'owner': self})
    self.http = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=self.http.serve_forever, daemon=True).start()
    self.url = f'http://127.0.0.1:{self.http.server_port}/v1'


class Handler(http.server.BaseHTTPRequestHandler):
  def do_POST(self):
    body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    asked = body['messages'][0]['content']
    self.owner.requests.append((self.path, body))
    self.owner.headers.append(dict(self.headers))
    tried = self.owner.tries[asked] = self.owner.tries.get(asked, 0) + 1
    if 'busy' in asked and tried <= 2:
      return self.answer(429, {}, {'Retry-After': '0.01'})
    if 'down' in asked:
      return self.answer(503, {})
    if 'refused' in asked:
      return self.answer(401, {'error': 'no such key'})
    if 'moved' in asked:
      return self.answer(302, {}, {'Location': '/elsewhere'})
    if 'bad' in asked:
      return self.answer(400, {'error': 'too many tokens'})
    if 'lost' in asked:  # Announces more than it sends, and hangs up.
      self.close_connection = True
      return self.answer(400, {}, {'Transfer-Encoding': 'chunked'})
    if 'parts' in asked:
      content = [{'type': 'text', 'text': '[[4]]'}]
      return self.answer(200, {'choices': [{'message': {'content': content}}]})
    if 'slow' in asked:
      time.sleep(1.5)
    if 'empty' in asked:
      return self.answer(200, {'choices': []})
    if 'longer' in asked:  # A judge, unless one of the two has '!'.
      _, one, two = asked.split('|')
      letter = 'AB'[len(two) > len(one)] if '!' not in asked else 'A'
      reply = f'I say [[{letter.lower()}]]' if '?' not in asked else 'Neither'
      return self.answer(200, {'choices': [{'message': {'content': reply}}]})
    words = asked.split()[-1]
    return self.answer(200, {'choices': [{'message': {'content': words}}]})

  def do_GET(self):  # What a redirected request becomes.
    self.owner.requests.append((self.path, {}))
    self.owner.headers.append(dict(self.headers))
    self.answer(200, {'choices': [{'message': {'content': '[[4]]'}}]})

  def answer(self, code, body, headers=()):
    data = json.dumps(body).encode()
    self.send_response(code)
    for name, value in dict(headers).items():
      self.send_header(name, value)
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    self.wfile.write(data)

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  server = Server()
  yield server
  server.http.shutdown()


def score(server, texts, **kw):
  kw = dict(
    model='judge-1', base_url=server.url, template='{question}\n{response}',
    timeout=20.0, retries=2, backoff=0.01, workers=2,
  ) | kw  # fmt: skip
  score_texts = rewards.endpoint_scores(**kw)
  return score_texts([{'prompt': 'asked'}] * len(texts), texts)


def test_scores_come_in_order(server, monkeypatch):
  monkeypatch.setenv('OPENAI_API_KEY', 'secret')
  texts = [f'[[{n}]]' for n in (7, 1, 10, 2.5)]
  scores, parts = score(server, texts)
  np.testing.assert_array_equal(scores, [7, 1, 10, 2.5])
  np.testing.assert_array_equal(parts['failed'], np.zeros(4))
  path, body = server.requests[0]
  assert path == '/v1/chat/completions'
  assert body['model'] == 'judge-1' and body['temperature'] == 0
  assert body['messages'][0]['content'].startswith('asked\n[[')
  assert server.headers[0]['Authorization'] == 'Bearer secret'


def test_address_and_key_may_come_from_the_environment(server, monkeypatch):
  monkeypatch.setenv('OPENAI_BASE_URL', server.url + '/')
  monkeypatch.delenv('OPENAI_API_KEY', raising=False)
  scores, _ = score(server, ['[[3]]'], base_url='', api_key_env='MY_KEY')
  assert list(scores) == [3] and 'Authorization' not in server.headers[0]
  monkeypatch.setenv('MY_KEY', 'other')
  score(server, ['[[3]]'], base_url='', api_key_env='MY_KEY')
  assert server.headers[1]['Authorization'] == 'Bearer other'
  monkeypatch.delenv('OPENAI_BASE_URL')
  with pytest.raises(ValueError, match="base_url is ''; give the address"):
    score(server, ['[[3]]'], base_url='')


def test_it_waits_for_one_that_is_busy(server):
  scores, _ = score(server, ['busy [[4]]'])
  assert list(scores) == [4] and len(server.requests) == 3


@pytest.mark.parametrize('text, tries, why', [
  ('down [[4]]', 3, 'HTTP 503.*after 3 tries'),
  ('bad [[4]]', 1, 'HTTP 400: .*too many tokens'),
  ('empty [[4]]', 1, 'no message in its answer'),
  ('4', 1, "no score in its reply: '4'"),
  ('[[11]]', 1, 'a score of 11, not from 1 to 10'),
  ('lost [[4]]', 1, 'HTTP 400: its text was lost'),
  ('parts [[4]]', 1, 'no message in its answer'),
])  # fmt: skip
def test_what_has_no_score_is_counted_and_said(
  server, caplog, text, tries, why
):
  scores, parts = score(server, ['[[5]]', text])
  np.testing.assert_array_equal(scores, [5, np.nan])
  np.testing.assert_array_equal(parts['failed'], [0, 1])
  asked = [b['messages'][0]['content'] for _, b in server.requests]
  assert sum(text in x for x in asked) == tries
  (record,) = caplog.records
  assert re.search(why, record.getMessage())


def test_it_does_not_wait_for_one_that_is_slow(server):
  scores, _ = score(server, ['slow [[4]]'], timeout=0.2, retries=1)
  assert np.isnan(scores[0])
  assert len(server.requests) == 2


def test_nobody_there():
  kw = dict(
    model='m', base_url='http://127.0.0.1:9/v1', retries=1, backoff=0.01
  )
  scores, parts = rewards.endpoint_scores(**kw)([{'prompt': 'x'}], ['y'])
  assert np.isnan(scores[0]) and parts['failed'][0] == 1


def test_a_refusal_stops_the_run(server):
  with pytest.raises(endpoint_lib.EndpointError, match='401: .*no such key'):
    score(server, ['refused [[4]]'])
  assert len(server.requests) == 1


def test_the_key_does_not_go_elsewhere(server, monkeypatch):
  monkeypatch.setenv('OPENAI_API_KEY', 'secret')
  score(server, ['moved [[4]]'])
  assert [path for path, _ in server.requests][1:] == ['/elsewhere']
  sent = ['Authorization' in headers for headers in server.headers]
  assert sent == [True, False]


def test_the_last_number_counts(server):
  scores, _ = score(server, ['[[2]]or[[9]]'])
  assert list(scores) == [9]
  scores, _ = score(server, ['Score:0.25'], pattern=r'Score:([\d.]+)', least=0)
  assert list(scores) == [0.25]


@pytest.mark.parametrize('pattern, want', [
  (r'\[\[(.*?)\]\]', np.nan),
  (r'(?:(\d)\]|five)', np.nan),  # The group takes no part in the match.
  (r'\[(\d)\](\D|$)', 2),  # The first group is the score.
  (r'\d', 2),
  (r'\[(nan|five)', np.nan),
])  # fmt: skip
def test_what_is_no_number_is_no_score(server, caplog, pattern, want):
  scores, parts = score(server, ['[2][[five]]', '[[3]]'], pattern=pattern)
  np.testing.assert_array_equal(scores[0], want)
  assert parts['failed'][0] == np.isnan(want)
  if np.isnan(want):
    assert 'five' in caplog.text


@pytest.mark.parametrize('kw, match', [
  (dict(timeout=0.0), 'timeout is 0.0'),
  (dict(template='{question}'), r'lacks \{response\}'),
  (dict(base_url='localhost:8000'), "base_url is 'localhost:8000'; give"),
])  # fmt: skip
def test_settings_that_make_no_sense(kw, match):
  given = dict(model='m', base_url='http://127.0.0.1:9/v1') | kw
  with pytest.raises(ValueError, match=match):
    rewards.endpoint_scores(**given)


class TestPairs:
  KW = dict(
    model='judge-1', template='longer {question}|{first}|{second}',
    pattern=r'\[\[([ABab])\]\]', retries=0, timeout=20.0,
  )  # fmt: skip

  def prefer(self, server, **kw):
    return rewards.endpoint_prefer(
      **self.KW | dict(base_url=server.url) | kw
    )

  def test_both_orders_are_asked(self, server):
    firsts, seconds = ('xx', 'x', 'x!'), ('y', 'yy', 'y')
    found = self.prefer(server)({}, ['q'] * 3, firsts, seconds)
    # The last is preferred for its place alone.
    np.testing.assert_array_equal(found, [1, 0, 0.5])
    asked = [body['messages'][0]['content'] for _, body in server.requests]
    assert {'longer q|xx|y', 'longer q|y|xx'} <= set(asked)
    assert len(asked) == 6

  def test_without_a_letter_in_one_order_there_is_none(self, server, caplog):
    found = self.prefer(server)({}, ['q', 'q'], ['xx', 'x?'], ['y', 'y'])
    np.testing.assert_array_equal(found, [1, np.nan])
    assert "no score in its reply: 'Neither'" in caplog.text

  def test_what_is_no_letter(self, server, caplog):
    found = self.prefer(server, pattern='say')({}, ['q'], ['x'], ['y'])
    assert np.isnan(found[0]) and "'say', which is not A or B" in caplog.text

  def test_its_scores_are_shares_of_wins(self, server, monkeypatch):
    texts = ['x', 'xx', 'xxx', 'x?']
    monkeypatch.setattr(
      'alignax.rewards.judge.texts_of',
      lambda *_: (texts, [{'prompt': 'q'}] * 4),
    )
    score_fn = rewards.endpoint_judge_scores(self.prefer(server), None, [])
    scores, parts = score_fn({}, {'row': np.zeros(4, np.int32)})
    np.testing.assert_array_equal(scores, [0, 0.5, 1, np.nan])
    np.testing.assert_array_equal(parts['failed'], [0, 0, 0, 1])

  def test_the_default_template_asks_for_what_the_pattern_finds(self):
    reply = lambda text: {'choices': [{'message': {'content': text}}]}
    wanted = re.compile(endpoint_lib.LETTER)
    assert endpoint_lib.letter_in(reply('So: [[B]]'), wanted) == 0
    assert endpoint_lib.letter_in(reply('[[B]], no, [[A]].'), wanted) == 1
    assert '[[A]]' in endpoint_lib.CHOOSE
