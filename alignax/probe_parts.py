"""The parts of a run's probes: what each measures, with its models and rows."""

import jax
import jax.numpy as jnp
import numpy as np

from alignax import data, lora, metrics, reading, sampling, sharding
from alignax.evals import drift, probes, samples
from alignax.models import convert

PROBES = 4  # Stream of the seed; `evals.samples` has 3, for one.
SHOWN = 8  # Responses that are kept for people to read.


class Trees:
  """Where probes find the policy and what it is compared with.

  Functions of (params, frozen, initial), for use inside of what is compiled.
  """

  def __init__(self, roles, initial):
    self.join, self.initial = roles.join, initial
    self.has_ref = 'ref' in roles.frozen

  def policy(self, params, frozen, initial):
    del initial
    return self.join(params, frozen)[0]['policy']

  def ref(self, params, frozen, initial):
    """The reference; without one, the policy as it was at first."""
    if self.has_ref:
      return self.join(params, frozen)[1]['ref']
    return self.join({'policy': initial}, frozen)[0]['policy']


def make_drift(roles, main: str, initial):
  shapes = convert.abstract_params(roles.models[main].config)

  def whole(params, frozen):
    params = roles.join({main: params}, frozen)[0][main]
    if roles.origin is None:
      return params
    return lora.merge(params, shapes, jnp.float32)

  compiled = jax.jit(
    lambda params, start, frozen: drift.by_layer(
      whole(params, frozen), whole(start, frozen)
    )
  )

  def probe(step, params, frozen):
    del step
    found = jax.device_get(compiled(params[main], initial, frozen))
    return {f'drift/{name}': float(value) for name, value in found.items()}

  return probe


def make_responses(config, trees, roles, tokenizer, heldout, scorer,
                   workdir):  # fmt: skip
  """Responses at temperature 1: distances, diversity, length, refusals."""
  p = config.evals.probes
  group, examples = p.per_prompt, heldout[: p.prompts]
  asked = [samples.prompt_tokens(e) for e in examples]
  prompts = sampling.left_pad(asked)
  numbers = np.repeat(np.array([e.row for e in examples], np.int32), group)
  model = roles.models['policy']
  draw = probes.make_draw(
    model,
    trees.policy,
    sampling.make_sampling(stop_ids=reading.stop_ids(tokenizer)),
    max_new_tokens=config.evals.sampling.max_new_tokens,
    group=group,
  )
  stats_of = probes.make_token_stats(model, trees.policy, trees.ref)
  rewards_of = make_rewards(trees, roles, heldout, scorer)
  scores_of = make_scores(config.evals.scorer, heldout.rows)
  key = jax.random.fold_in(jax.random.key(config.seed), PROBES)
  # One a prompt, where the run draws no samples of its own.
  shown = 0 if config.evals.samples else min(SHOWN, len(asked))

  def probe(step, params, frozen):
    given = params, frozen, trees.initial
    drawn = draw(*given, prompts, key)
    rows, stats = sharding.to_host((drawn, stats_of(*given, drawn)))
    texts = probes.texts_of(rows, tokenizer)
    scores = scores_of(numbers, texts)
    rewards = rewards_of(*given, rows | {'row': numbers})
    metrics.append_samples(workdir, [
      {'step': step, 'prompt': tokenizer.decode(asked[i])}
      | as_sample(i * group, texts, rows, scores, rewards)
      for i in range(shown)
    ])  # fmt: skip
    means = {k: probes.mean(x) for k, x in (scores | rewards).items()}
    found = probes.distances(stats, rows) | probes.of_texts(
      texts, rows['lengths'], rewards.get('reward'), scores.get('total'),
      group=group,
    )  # fmt: skip
    return found | {k: float(x) for k, x in means.items() if x is not None}

  return probe


def as_sample(i: int, texts, rows, scores, rewards) -> dict:
  """A response as a line of `samples.jsonl`."""
  found = {
    'response': texts[i],
    'tokens': int(rows['lengths'][i]),
    'finished': bool(rows['finished'][i]),
  }
  if scores:
    found['scores'] = {k: samples.number(x[i]) for k, x in scores.items()}
  if 'reward' in rewards:
    found['reward'] = samples.number(rewards['reward'][i])
  return found


def make_scores(name: str, rows):
  """Makes `scores(numbers, texts) -> {name: [B]}` by the scorer of that name.

  Nothing is in there without a scorer.
  """
  score = samples.find_scorer(name)

  def scores_of(numbers, texts):
    if score is None:
      return {}
    found = [score(rows[n], text) for n, text in zip(numbers, texts)]
    return {k: [s.get(k, np.nan) for s in found] for k in found[0]}

  return scores_of


def make_rewards(trees, roles, heldout, scorer):
  """Makes `rewards(params, frozen, initial, rows) -> {name: [B]}`.

  'reward' is what the policy is trained on; 'rewards/NAME' is each of
  `config.rewards` as it was given. A policy that learns from no reward, as with
  DPO, has neither: another score would be another thing of the same name.
  """
  score_fn = scorer.score_fn(heldout.rows, single=True)
  if score_fn is None and 'reward' not in roles.frozen:
    return lambda *_: {}

  @jax.jit
  def by_role(params, frozen, rows):
    reward = trees.join(params, frozen)[1]['reward']
    return roles.models['reward'].scores(reward, rows)[..., 0]

  def rewards_of(params, frozen, initial, rows):
    del initial
    if score_fn is None:
      total = by_role(params, frozen, {k: rows[k] for k in probes.TOKENS})
      return {'reward': sharding.to_host(total)}
    total, parts = score_fn(frozen, rows)
    found = {f'rewards/{name}': x for name, x in parts.items()}
    return sharding.to_host({'reward': total} | found)

  return rewards_of


def make_sycophancy(config, trees, roles, tokenizer):
  """Greedy answers with and without a wrong opinion of the user's."""
  pairs = probes.opinion_rows(config.evals.probes.sycophancy, config.seed)
  prompts = [
    sampling.encode(tokenizer, row['prompt'])
    for which in zip(*pairs)
    for row in which
  ]
  draw = probes.make_draw(
    roles.models['policy'],
    trees.policy,
    sampling.make_sampling(
      temperature=0.0, stop_ids=reading.stop_ids(tokenizer)
    ),
    max_new_tokens=config.evals.sampling.max_new_tokens,
  )
  key = jax.random.key(config.seed)  # Greedy: nothing is drawn by it.

  def probe(step, params, frozen):
    del step
    rows = draw(params, frozen, trees.initial, sampling.left_pad(prompts), key)
    texts = probes.texts_of(sharding.to_host(rows), tokenizer)
    asked, plain = texts[: len(pairs)], texts[len(pairs) :]
    found = probes.sycophancy(pairs, asked, plain)
    return {f'sycophancy/{name}': value for name, value in found.items()}

  return probe


def make_text(config, trees, roles, tokenizer, mesh):
  """Loss on raw text that the policy was once good at: the alignment tax."""
  p = config.evals.probes
  kw = dict(kind='text', length=p.text_length or config.data.length)
  examples, _ = data.prepare(data.load_rows(p.text), tokenizer, **kw)
  batches = data.Batches(
    examples,
    batch_size=config.data.batch_size,
    seed=0,
    packing=True,
    shuffle=False,
    repeat=False,
    **kw,
    **reading.hosts(),
  )
  loss = probes.make_text_loss(roles.models['policy'], trees.policy)

  def probe(step, params, frozen):
    del step
    given = params, frozen, trees.initial
    sums = [
      jax.device_get(loss(*given, sharding.shard_batch(mesh, batch)))
      for batch in batches
    ]
    nll, count = map(sum, zip(*sums))
    return {'text_loss': float(nll / count)}

  return probe
