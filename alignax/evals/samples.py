"""Samples: what the model writes to held-out prompts, for people to read.

A reward model writes nothing; its sample is how it scores held-out candidates.
"""

import functools

import jax
import numpy as np

from alignax import data, rewards, sampling, sharding, train
from alignax.losses import lookup

SAMPLES = 3  # Stream of the seed: apart from those of the training loop.
# Arguments of `draw` that `evals.sampling` may give.
SAMPLING = ('max_new_tokens', 'temperature', 'top_p')


def check(config):
  """Raises for a key of `evals.sampling`, or an `evals.scorer`, that is none.

  Raises:
    ValueError: it names the nearest one that there is.
  """
  for key in config.evals.sampling:
    if key not in SAMPLING:
      raise ValueError(
        f'evals.sampling.{key} is unknown; {lookup.nearest(key, SAMPLING)}.'
      )
  try:
    find_scorer(config.evals.scorer)
  except ValueError as error:
    raise ValueError(f'evals.scorer: {error}') from error


def draw(
  models,
  params,
  frozen,
  tokenizer,
  examples,
  *,
  number: int,
  seed: int,
  max_new_tokens: int = 64,
  temperature: float = 0.0,
  top_p: float = 1.0,
  stop_ids=(),
  scorer: str = '',
  score_fn=None,
  join=train.separate,
) -> tuple[list[dict], dict[str, float]]:
  """Draws and scores samples.

  Args:
    models: by role.
    params: by role; those of 'policy', or else of 'reward', are used.
    frozen: by role; a reward model scores the samples, and a reference says
      how far (in nats a response, estimated) the policy has gone from it.
    tokenizer: turns tokens back into text.
    examples: held out, of any kind; the first `number` are used.
    number: how many.
    seed: of the draws.
    max_new_tokens, temperature, top_p, stop_ids: of sampling.
    scorer: dotted name of a function (row, response) -> {name: number}, or ''.
    score_fn: what the policy learns from (see `alignax.rewards`), of responses
      to `examples.rows`; without it, the reward model in `frozen`.
    join: of roles that share parameters; see `train.make_update`.

  Returns:
    The samples, and the mean of every score.
  """
  examples = examples[:number], getattr(examples, 'rows', ())
  apart = frozen  # As score functions take them.
  params, frozen = join(params, frozen)
  if 'policy' not in params:
    return _score(models['reward'], params['reward'], tokenizer, *examples)
  draw = sampling.make_sampling(
    temperature=temperature, top_p=top_p, stop_ids=stop_ids
  )
  prompts = [prompt_tokens(example) for example in examples[0]]
  rows = sharding.to_host(
    sampling.sample(
      models['policy'],
      params['policy'],
      sampling.left_pad(prompts),
      jax.random.fold_in(jax.random.key(seed), SAMPLES),
      draw,
      max_new_tokens=max_new_tokens,
    )
  )
  samples, scores = _read(rows, prompts, tokenizer, *examples, scorer)
  if score_fn is not None:
    scores |= _add_rewards(score_fn, apart, rows, examples[0], samples)
  elif 'reward' in frozen:
    found = _rewards(models['reward'], frozen['reward'], rows)
    for sample, reward in zip(samples, found):
      sample['reward'] = float(reward)
    scores['reward'] = float(np.mean(found))
  if 'ref' in frozen and temperature:
    # Of what was drawn at this temperature; greedy text estimates no KL.
    scores['kl'] = _kl(models['policy'], frozen['ref'], rows, temperature)
  return samples, scores


TOKENS = ('inputs', 'targets', 'segments', 'positions', 'mask')


# Of a model as an argument, not of its methods: those are new objects each time
# that they are asked for, and would compile again at every evaluation.
@functools.partial(jax.jit, static_argnums=0)
def _scores(reward, params, batch):
  return reward.scores(params, batch)


@functools.partial(jax.jit, static_argnums=0)
def _logps(policy, params, batch, temperature):
  return policy.logps(params, batch, temperature=temperature)


def _rewards(reward, params, rows) -> np.ndarray:
  scores = _scores(reward, params, {k: rows[k] for k in TOKENS})
  return sharding.to_host(scores)[:, 0]


def _add_rewards(score_fn, frozen, rows, examples, samples) -> dict:
  """Puts into every sample what it is worth; the means of that."""
  numbers = np.array([example.row for example in examples], np.int32)
  total, parts = score_fn(frozen, rows | {'row': numbers})
  total, parts = sharding.to_host((total, dict(parts)))
  for i, sample in enumerate(samples):
    sample['reward'] = number(total[i])
    sample['rewards'] = {name: number(x[i]) for name, x in parts.items()}
  means = rewards.summary(total, parts)
  means['reward'] = rewards.mean_of(total, np.isfinite(total))
  return {name: float(x) for name, x in means.items()}


def number(x) -> float | None:
  """None where a reward has no score, which JSON knows."""
  return float(x) if np.isfinite(x) else None


def _kl(policy, params, rows, temperature: float) -> float:
  ref_logps = _logps(
    policy, params, {k: rows[k] for k in TOKENS}, temperature=temperature
  )
  ratios = rows['logps'] - sharding.to_host(ref_logps)
  return float(np.mean(np.sum(ratios, axis=1)))


def prompt_tokens(example) -> np.ndarray:
  """What stands before the first learned token, or all of a prompt.

  Of raw text that is learned from its first token on, the first quarter: from
  nothing, nothing is sampled.
  """
  tokens, learned = example.tokens[0], example.learned[0]
  if not learned.any():
    return tokens
  start = int(np.argmax(learned)) or max(1, len(tokens) // 4)
  return tokens[:start]


def _read(rows, prompts, tokenizer, examples, sources, scorer):
  score = find_scorer(scorer)
  samples, scores = [], []
  for i, example in enumerate(examples):
    response = rows['targets'][i][rows['mask'][i]]
    text = tokenizer.decode(response, skip_special_tokens=True)
    sample = {
      'prompt': tokenizer.decode(prompts[i]),
      'response': text,
      'tokens': int(rows['lengths'][i]),
      'finished': bool(rows['finished'][i]),
    }
    if score is not None:
      sample['scores'] = score(sources[example.row], text)
      scores.append(sample['scores'])
    samples.append(sample)
  means = {
    'length': float(np.mean([s['tokens'] for s in samples])),
    'finished': float(np.mean([s['finished'] for s in samples])),
  }
  for name in scores[0] if scores else ():
    means[name] = float(np.mean([s[name] for s in scores]))
  return samples, means


def _score(reward, params, tokenizer, examples, rows):
  """How a reward model scores the candidates of held-out comparisons."""
  del rows
  length = max(example.length for example in examples)
  batches = data.Batches(
    examples,
    kind='pairs' if examples[0].ranks is None else 'rankings',
    length=length,
    batch_size=len(examples),
    seed=0,
    shuffle=False,
    repeat=False,
  )
  scores = sharding.to_host(_scores(reward, params, batches[0]))[..., 0]
  samples = []
  for example, row in zip(examples, scores):
    start = len(prompt_tokens(example))
    samples.append({
      'prompt': tokenizer.decode(example.tokens[0][:start]),
      'responses': [tokenizer.decode(t[start:]) for t in example.tokens],
      'scores': [float(s) for s in row[: len(example.tokens)]],
    })
  return samples, {'score_std': float(np.std(scores))}


def find_scorer(name: str):
  """The function of a dotted name; None of ''."""
  return lookup.dotted(name, 'scorer') if name else None
