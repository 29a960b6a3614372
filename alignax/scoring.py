"""From `config.rewards` to the score function of a run.

  config.rewards = dict(
    helpful=dict(kind='model', source='runs/reward'),
    format=dict(kind='checker', name='format', weight=0.2),
  )

Every reward has a kind, a weight (`rewards.Term`) and the arguments of what its
kind is made by. Without any, an algorithm asks its own role 'reward'.
"""

import collections
import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import NamedTuple

from alignax import assemble, checks, data, rewards
from alignax.models import Model
from alignax.rewards import checkers
from alignax.rewards.combine import ScoreFn
from alignax.rewards.endpoint import check_url
from alignax.rewards.judge import check_template
from alignax.rewards.models import check_penalty
from alignax.rewards.pool import check_timeout
from alignax.types import Params

TERM = [name for name in rewards.Term._fields if name != 'score_fn']
# The functions whose keyword arguments are the keys of a reward, by its kind,
# and the keys that are read here.
KINDS = {
  'model': ([rewards.ensemble_scores], ['source', 'members']),
  'checker': ([rewards.Pool.__init__, rewards.checker_scores], ['name']),
  'judge': ([rewards.make_prefer, rewards.judge_scores], ['source']),
  'endpoint': ([rewards.endpoint_scores], []),
  'length': ([rewards.overlong_scores], []),
}
GIVEN = ('role', 'join')  # Not for a config to say.


class Made(NamedTuple):
  """One reward.

  Attributes:
    score_fn: rows of a data set -> score function of responses to them.
    models: by role, that it reads.
    frozen: their parameters.
  """

  score_fn: Callable[..., ScoreFn]
  models: dict[str, Model]
  frozen: Params


class Scorer(NamedTuple):
  """What scores a run's responses.

  Attributes:
    models: by role; reward models and judges.
    frozen: their parameters.
    terms: for each reward, rows of a data set -> its term.
    single: names of those that a response can have which is the only one to its
      prompt, as on held-out rows.
  """

  models: dict[str, Model]
  frozen: Params
  terms: dict[str, Callable[..., rewards.Term]]
  single: tuple[str, ...]

  def arguments(self, rows) -> dict:
    """What an algorithm that learns from responses to these rows is given."""
    return {'score_fn': self.score_fn(rows)} if self.terms else {}

  def beside(self, roles: assemble.Roles) -> assemble.Roles:
    """The roles of a run, and those of its rewards."""
    return roles._replace(
      models=roles.models | self.models, frozen=roles.frozen | self.frozen
    )

  def score_fn(self, rows, *, single: bool = False) -> ScoreFn | None:
    """Of responses to these rows; None where there are no rewards."""
    names = self.single if single else self.terms
    if not names:
      return None
    return rewards.weighted_sum(
      {name: self.terms[name](rows) for name in names}
    )


def check(config, algorithm):
  """Raises for rewards that cannot be, before anything is loaded."""
  taken = inspect.signature(algorithm.make_step).parameters
  if config.rewards and 'score_fn' not in taken:
    raise ValueError(
      f'rewards are set, but {config.algorithm} takes none: it does not sample.'
    )
  for name, reward in config.rewards.items():
    where = f'rewards.{name}'
    kind = reward.get('kind', '')
    if kind not in KINDS:
      raise ValueError(
        f'{where}.kind is {kind!r}{checks.nearest(kind, KINDS)}.'
      )
    known = keys_of(kind)
    for key in reward:
      if key not in known:
        raise ValueError(
          f'{where}.{key} is unknown{checks.nearest(key, known)}.'
        )
    try:
      CHECKS[kind](reward)
    except ValueError as error:
      raise ValueError(f'{where}: {error}') from error


def keys_of(kind: str) -> list[str]:
  """All keys of a reward of a kind."""
  functions, own = KINDS[kind]
  found = [key for f in functions for key in checks.keywords(f)]
  return ['kind', *TERM, *own, *(key for key in found if key not in GIVEN)]


def load(config, mesh, tokenizer, stack: contextlib.ExitStack) -> Scorer:
  """Loads reward models and judges, and starts checkers.

  Args:
    config: checked by `check`.
    mesh: where parameters live.
    tokenizer: the policy's.
    stack: on which the processes of checkers are closed.
  """
  made, terms = {}, {}
  for name, reward in config.rewards.items():
    kw = {k: v for k, v in reward.items() if k not in ('kind', *TERM)}
    made[name] = MAKERS[reward.kind](
      name, kw, config=config, mesh=mesh, tokenizer=tokenizer, stack=stack
    )
    term = {k: v for k, v in reward.items() if k in TERM}
    terms[name] = functools.partial(_term, made[name].score_fn, term)
  merged = lambda dicts: dict(collections.ChainMap(*dicts))
  return Scorer(
    models=merged(m.models for m in made.values()),
    frozen=merged(m.frozen for m in made.values()),
    terms=terms,
    single=tuple(n for n, r in config.rewards.items() if not _compares(r)),
  )


def _term(score_fn, kw, rows):
  return rewards.Term(score_fn(rows), **kw)


def _compares(reward) -> bool:
  """Whether it holds the responses to one prompt against each other."""
  return reward.kind == 'judge' and not reward.get('baseline')


def _model(name, kw, *, config, mesh, tokenizer, **_) -> Made:
  """One reward model, or an ensemble; see `rewards.ensemble_scores`."""
  source = kw.pop('source', '') or assemble.source_of(config, 'reward')
  sources = kw.pop('members', ()) or (source,)
  found, frozen = {}, {}
  for i, source in enumerate(sources):
    role = f'reward_{name}_{i}'
    found[role], frozen[role] = assemble.load_role(
      config, 'reward', source, mesh, frozen=True
    )
    assemble.check_vocabulary(frozen[role], len(tokenizer), role, source)
  if len(sources) > 1:
    score_fn = rewards.ensemble_scores(found, **kw)
  else:
    score_fn = rewards.reward_model_scores(found[role], role=role)
  return Made(lambda rows: score_fn, found, frozen)


def _checker(name, kw, *, tokenizer, stack, **_) -> Made:
  """Processes that run a Python function; see `rewards.pool`."""
  del name
  dotted = dotted_name(kw.pop('name'))
  own = {k: kw.pop(k) for k in ('entry', 'on_failure') if k in kw}
  pool = stack.enter_context(rewards.Pool(dotted, **kw))
  score_texts = rewards.checker_scores(pool, **own)
  return Made(
    lambda rows: rewards.on_host(score_texts, tokenizer, rows), {}, {}
  )


def _judge(name, kw, *, config, mesh, tokenizer, **_) -> Made:
  """A language model that compares two responses; see `rewards.judge`."""
  role, source = f'judge_{name}', kw.pop('source', '') or config.init_from
  baseline = kw.pop('baseline', '')
  # It is loaded as a reference is: with its language head, and only read.
  model, params = assemble.load_role(config, 'ref', source, mesh, frozen=True)
  own = tokenizer if source == config.init_from else data.load_tokenizer(source)
  prefer = rewards.make_prefer(model, own, role=role, **kw)
  score_fn = lambda rows: rewards.judge_scores(
    prefer, tokenizer, rows, baseline=baseline
  )
  return Made(score_fn, {role: model}, {role: params})


def _endpoint(name, kw, *, tokenizer, **_) -> Made:
  del name
  score_texts = rewards.endpoint_scores(**kw)
  return Made(
    lambda rows: rewards.on_host(score_texts, tokenizer, rows), {}, {}
  )


def _length(name, kw, **_) -> Made:
  del name
  score_fn = rewards.overlong_scores(**kw)
  return Made(lambda rows: score_fn, {}, {})


MAKERS = {
  'model': _model,
  'checker': _checker,
  'judge': _judge,
  'endpoint': _endpoint,
  'length': _length,
}


def _check_model(reward):
  check_penalty(reward.get('penalty', 'std'))
  if reward.get('source') and reward.get('members'):
    raise ValueError('it has source and members: give one of them.')


def _check_checker(reward):
  if not reward.get('name'):
    raise ValueError(
      f'name is missing; there are {", ".join(checkers.__all__)}.'
    )
  check_timeout(reward.get('timeout', 1.0))
  function = find_checker(reward.name)
  if reward.name == 'math':
    checkers.need_math_verify()
  known = checks.keywords(function)
  for key in reward.get('kw', {}):
    if key not in known:
      raise ValueError(f'kw.{key} is unknown{checks.nearest(key, known)}.')


def _check_judge(reward):
  if 'template' in reward:
    check_template(reward.template)


def _check_endpoint(reward):
  if not reward.get('model'):
    raise ValueError("model is missing: the endpoint's name of it.")
  check_url(reward.get('base_url', ''))
  check_timeout(reward.get('timeout', 1.0))


def _check_length(reward):
  if 'max_length' not in reward or 'cache' not in reward:
    raise ValueError('it needs max_length and cache, in tokens.')
  rewards.overlong_scores(max_length=reward.max_length, cache=reward.cache)


CHECKS = {
  'model': _check_model,
  'checker': _check_checker,
  'judge': _check_judge,
  'endpoint': _check_endpoint,
  'length': _check_length,
}


def dotted_name(name: str) -> str:
  """Of a checker by its short name, or its dotted one."""
  return name if '.' in name else f'{checkers.__name__}.{name}'


def find_checker(name: str):
  """The function that a config's checker name means."""
  if '.' not in name and name not in checkers.__all__:
    raise ValueError(
      f'there is no checker {name!r}{checks.nearest(name, checkers.__all__)}.'
    )
  module, function = dotted_name(name).rsplit('.', 1)
  try:
    return getattr(importlib.import_module(module), function)
  except (ModuleNotFoundError, AttributeError) as error:
    raise ValueError(f'the checker {name!r} is not found: {error}.') from error
