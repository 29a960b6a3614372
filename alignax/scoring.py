"""From `config.rewards` to the score function of a run.

  config.rewards = dict(
    helpful=dict(kind='model', source='runs/reward'),
    format=dict(kind='checker', name='format', weight=0.2),
  )

Every reward has a kind, a weight (`rewards.Term`) and the arguments of what its
kind is made by; `reward_checks` has them all. Without any reward, an algorithm
asks its own role 'reward'.
"""

import collections
import contextlib
import functools
from collections.abc import Callable
from typing import NamedTuple

from alignax import reading, reward_checks, rewards, role_params
from alignax.models import Model
from alignax.reward_checks import TERM
from alignax.rewards.combine import ScoreFn
from alignax.types import Params


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

  def beside(self, roles: role_params.Roles) -> role_params.Roles:
    """The roles of a run, and those of its rewards."""
    return roles._replace(
      models=roles.models | self.models, frozen=roles.frozen | self.frozen
    )

  def score_fn(self, rows, *, single: bool = False) -> ScoreFn | None:
    """Of responses to these rows; None where there are no rewards.

    Args:
      rows: of a data set.
      single: for evaluation: of the rewards in `single`, none standardised.
    """
    names = self.single if single else self.terms
    if not names:
      return None
    terms = {name: self.terms[name](rows) for name in names}
    if single:
      terms = {name: term.raw() for name, term in terms.items()}
    return rewards.weighted_sum(terms)


def load(config, mesh, tokenizer, stack: contextlib.ExitStack) -> Scorer:
  """Loads reward models and judges, and starts checkers.

  Args:
    config: checked by `reward_checks.check`.
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
    single=tuple(
      name
      for name, reward in config.rewards.items()
      if not reward_checks.compares(reward)
    ),
  )


def _term(score_fn, kw, rows):
  return rewards.Term(score_fn(rows), **kw)


def _model(name, kw, *, config, mesh, tokenizer, **_) -> Made:
  """One reward model, or an ensemble; see `rewards.ensemble_scores`."""
  source = kw.pop('source', '') or role_params.source_of(config, 'reward')
  sources = kw.pop('members', ()) or (source,)
  found, frozen = {}, {}
  for i, source in enumerate(sources):
    role = f'reward_{name}_{i}'
    found[role], frozen[role] = role_params.load_role(
      config, 'reward', source, mesh, frozen=True
    )
    role_params.check_vocabulary(frozen[role], len(tokenizer), role, source)
  if len(sources) > 1:
    score_fn = rewards.ensemble_scores(found, **kw)
  else:
    score_fn = rewards.reward_model_scores(found[role], role=role)
  return Made(lambda rows: score_fn, found, frozen)


def _checker(name, kw, *, tokenizer, stack, **_) -> Made:
  """Processes that run a Python function; see `rewards.pool`."""
  del name
  dotted = reward_checks.dotted_name(kw.pop('name'))
  own = {k: kw.pop(k) for k in ('entry', 'on_failure') if k in kw}
  if 'kw' in kw:
    kw['kw'] = kw['kw'].to_dict()  # It travels as JSON.
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
  model, params = role_params.load_role(
    config, 'ref', source, mesh, frozen=True
  )
  own = tokenizer
  if source != config.init_from:
    own = reading.tokenizer_of(source)
  kw.setdefault('length', min(1024, model.config.max_length))
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


def _endpoint_judge(name, kw, *, tokenizer, **_) -> Made:
  """An endpoint that compares two responses; see `rewards.endpoint`."""
  del name
  baseline = kw.pop('baseline', '')
  prefer = rewards.endpoint_prefer(**kw)
  score_fn = lambda rows: rewards.endpoint_judge_scores(
    prefer, tokenizer, rows, baseline=baseline
  )
  return Made(score_fn, {}, {})


def _length(name, kw, **_) -> Made:
  del name
  score_fn = rewards.overlong_scores(**kw)
  return Made(lambda rows: score_fn, {}, {})


MAKERS = {
  'model': _model,
  'checker': _checker,
  'judge': _judge,
  'endpoint': _endpoint,
  'endpoint_judge': _endpoint_judge,
  'length': _length,
}
