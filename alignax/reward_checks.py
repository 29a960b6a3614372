"""Checks of `config.rewards`, made before anything is loaded or compiled."""

import inspect

from alignax import checks, rewards
from alignax.losses import lookup
from alignax.rewards import checkers
from alignax.rewards.endpoint import check_url, make_ask
from alignax.rewards.judge import check_template
from alignax.rewards.models import check_penalty
from alignax.rewards.pool import check_timeout

TERM = [name for name in rewards.Term._fields if name != 'score_fn']
# The functions whose keyword arguments are the keys of a reward, by its kind,
# and the keys that are read here.
KINDS = {
  'model': ([rewards.ensemble_scores], ['source', 'members']),
  'checker': ([rewards.Pool.__init__, rewards.checker_scores], ['name']),
  'judge': ([rewards.make_prefer, rewards.judge_scores], ['source']),
  'endpoint': ([make_ask, rewards.endpoint_scores], []),
  'endpoint_judge': (
    [make_ask, rewards.endpoint_prefer, rewards.endpoint_judge_scores], []
  ),
  'length': ([rewards.overlong_scores], []),
}
JUDGES = ('judge', 'endpoint_judge')  # Of two responses.
GIVEN = ('role', 'join')  # Not for a config to say.


def check(config, algorithm):
  """Raises for rewards that cannot be, before anything is loaded."""
  taken = inspect.signature(algorithm.make_step).parameters
  if config.rewards and 'score_fn' not in taken:
    raise ValueError(
      f'rewards are set, but {config.algorithm} takes none: it does not sample.'
    )
  group = group_size(config, algorithm)
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
    if reward.get('clip', 0.0) < 0:
      raise ValueError(f'{where}.clip is {reward.clip}; it is 0 or positive.')
    try:
      CHECKS[kind](reward)
    except ValueError as error:
      raise ValueError(f'{where}: {error}') from error
    if compares(reward) and group == 1:
      raise ValueError(
        f'{where} compares the responses to a prompt, and {config.algorithm} '
        'samples one: set its baseline to a field of the rows with a response '
        'to win against, or algorithm_kw.group, where there is one.'
      )
  _check_scale(config, algorithm)
  _check_chance(config, algorithm)


def _check_scale(config, algorithm):
  """Refuses to standardise what is compared with another batch."""
  apart = getattr(algorithm, 'SCORED_APART', '')
  if config.algorithm_kw.get('rounds', 1) > 1:
    apart = 'the groups of all rounds'
  for name, reward in config.rewards.items():
    if reward.get('standardise') and apart:
      raise ValueError(
        f'rewards.{name}.standardise is over one batch of responses, and '
        f'{config.algorithm} compares {apart}: leave it out.'
      )


def _check_chance(config, algorithm):
  """Whether an algorithm of chances to win gets some, or else scores."""
  taken = inspect.signature(algorithm.make_step).parameters
  if 'win_probs' not in taken:
    return
  win_probs = config.algorithm_kw.get('win_probs', taken['win_probs'].default)
  counted = [r for r in config.rewards.values() if r.get('weight', 1.0)]
  if not win_probs and any(map(compares, counted)):
    raise ValueError(
      'a judge of two responses gives chances to win: set '
      'algorithm_kw.win_probs=True.'
    )
  if win_probs and list(map(_is_chance, counted)) != [True]:
    raise ValueError(
      'algorithm_kw.win_probs=True needs one judge of two responses as the '
      'only reward, without weight, clip, standardise or baseline.'
    )


def _is_chance(reward) -> bool:
  plain = reward.get('weight', 1.0) == 1 and not reward.get('clip')
  return compares(reward) and plain and not reward.get('standardise')


def compares(reward) -> bool:
  """Whether it holds the responses to one prompt against each other."""
  return reward.kind in JUDGES and not reward.get('baseline')


def group_size(config, algorithm) -> int | None:
  """How many responses to a prompt are scored together, where it is known."""
  parameters = inspect.signature(algorithm.make_step).parameters
  if 'group' not in parameters:
    return getattr(algorithm, 'GROUP', None)
  return config.algorithm_kw.get('group', parameters['group'].default)


def keys_of(kind: str) -> list[str]:
  """All keys of a reward of a kind."""
  functions, own = KINDS[kind]
  found = [key for f in functions for key in checks.keywords(f)]
  return ['kind', *TERM, *own, *(key for key in found if key not in GIVEN)]


def _check_model(reward):
  check_penalty(reward.get('penalty', 'std'))
  members = reward.get('members', ())
  if isinstance(members, str):
    raise ValueError(f'members is {members!r}; give a tuple of sources.')
  if reward.get('source') and members:
    raise ValueError('it has source and members: give one of them.')
  if len(members) < 2 and ('penalty' in reward or 'coef' in reward):
    raise ValueError(
      'penalty and coef are of an ensemble: give its sources as members.'
    )


def _check_checker(reward):
  if not reward.get('name'):
    raise ValueError(
      f'name is missing; there are {", ".join(checkers.__all__)}.'
    )
  check_timeout(reward.get('timeout', 1.0))
  function = find_checker(reward.name)
  if reward.name == 'math':
    checkers.need_math_verify()
  _, _, *known = inspect.signature(function).parameters
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


def _check_endpoint_judge(reward):
  _check_judge(reward)
  _check_endpoint(reward)


def _check_length(reward):
  if 'max_length' not in reward or 'cache' not in reward:
    raise ValueError('it needs max_length and cache, in tokens.')
  rewards.overlong_scores(max_length=reward.max_length, cache=reward.cache)


CHECKS = {
  'model': _check_model,
  'checker': _check_checker,
  'judge': _check_judge,
  'endpoint': _check_endpoint,
  'endpoint_judge': _check_endpoint_judge,
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
  return lookup.dotted(dotted_name(name), 'checker')
