"""Online algorithms on what is true: the gold score of a small world rises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_worlds as worlds

from alignax import assemble, checks, data, metrics, models, reading, run, train
from alignax.algorithms import (
  grpo,
  llama3_rounds,
  nash_md,
  online_dpo,
  raft,
  reinforce_pp,
  remax,
  rloo,
  sft,
)
from alignax.cli import configs
from alignax.data import synthetic

KEY = jax.random.key(0)
LENGTH, N = 24, 12
CASES = {
  'grpo': (grpo, dict(minibatches=2, kl_coef=0.01)),
  'dr_grpo': (grpo, dict(scale='none', average='budget')),
  'dapo': (grpo, dict(rounds=3, average='token', clip_high=0.28,
                      overlong_cache=4, minibatches=2)),
  'gspo': (grpo, dict(ratio='sequence', clip_low=3e-4, clip_high=4e-4,
                      minibatches=2)),
  'gmpo': (grpo, dict(ratio='geometric', clip_low=0.4, clip_high=0.4,
                      minibatches=2)),
  'sapo': (grpo, dict(loss='sapo', minibatches=2)),
  'cispo': (grpo, dict(loss='cispo', average='token', minibatches=2)),
  'rloo': (rloo, dict()),
  'reinforce_pp': (reinforce_pp, dict(group=4)),
  'reinforce_pp-baseline': (
    reinforce_pp, dict(group=4, baseline='group', kl_in='loss')
  ),
  'remax': (remax, dict()),
  'raft': (raft, dict()),
  'online_dpo': (online_dpo, dict(group=4)),
  'iterative': (online_dpo, dict(group=4, round_steps=8)),
  'xpo': (online_dpo, dict(loss='xpo')),
  'nash_md': (nash_md, dict(beta=0.01)),
  'llama3_rounds': (
    llama3_rounds, dict(sft_steps=6, dpo_steps=6, restart=False)
  ),
  'llama3_rounds-restart': (llama3_rounds, dict(sft_steps=6, dpo_steps=6)),
}  # fmt: skip


def batches(name, kind, tokenizer, batch_size):
  """Batches of an easy part of the synthetic world, and their rows."""
  rows = synthetic.rows(name, n=600, tasks='next,subtract')
  examples, _ = data.prepare(rows, tokenizer, kind=kind, length=LENGTH)
  return data.Batches(
    examples, kind=kind, length=LENGTH, batch_size=batch_size, seed=0
  )


@pytest.fixture(scope='session')
def world():
  """A tokenizer, and a policy after short SFT on answers of mixed quality."""
  tokenizer = synthetic.make_tokenizer()
  model = models.Model(
    models.Config(
      vocab_size=len(tokenizer), width=32, depth=2, num_heads=2, num_kv_heads=2,
      head_dim=16, mlp_width=64, max_length=LENGTH + N, remat='none',
    )
  )  # fmt: skip
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(6e-3))
  state = train.init_state({'policy': model.init(KEY)}, tx)
  step = sft.make_step({'policy': model}, tx)
  feed = batches('demonstrations', 'text', tokenizer, 32)
  for i in range(120):
    state, _ = step(state, {}, feed[i], KEY)
  return tokenizer, model, jax.device_get(state.params)


def gold_scores(tokenizer, sources, scores):
  """A score function that knows the truth, and notes what it saw."""

  def score_fn(frozen, rows):
    rows = jax.device_get(rows)
    texts = [
      tokenizer.decode(targets[mask], skip_special_tokens=True)
      for targets, mask in zip(rows['targets'], rows['mask'])
    ]
    found = [
      synthetic.gold_score(sources[row], text)['total']
      for row, text in zip(rows['row'], texts)
    ]
    scores.append(np.mean(found))
    return np.array(found, np.float32), {}

  return score_fn


@pytest.mark.gold
@pytest.mark.parametrize('name', CASES)
def test_the_gold_score_rises(name, world):
  tokenizer, model, params = world
  module, kw = CASES[name]
  # Some 64 responses a step, whatever the group.
  prompts = {'remax': 64, 'xpo': 64, 'nash_md': 32}.get(name, 16)
  size = prompts * kw.get('rounds', 1)
  feed = batches('prompts', 'prompts', tokenizer, size)
  kw = kw | dict(
    max_new_tokens=N,
    stop_ids=reading.stop_ids(tokenizer),
    score_fn=gold_scores(tokenizer, feed.rows, []),
  )
  tx, extra = optax.adam(2e-3), {}
  start = jax.tree.map(jnp.array, params)
  if hasattr(module, 'init_extra'):
    extra = module.init_extra(params=start, **kw)
  state = train.init_state(start, tx, extra=extra)
  step = module.make_step({'policy': model}, tx, **kw)
  frozen, scores = {'ref': jax.tree.map(jnp.array, params['policy'])}, []
  for i in range(40):
    state, metrics = step(state, frozen, feed[i], KEY)
    scores.append(float(metrics['objective/score']))
  first, last = np.mean(scores[:8]), np.mean(scores[-8:])
  print(f'{name}: {first:.3f} -> {last:.3f}')
  assert last > first + 0.03  # Of 512 responses each.


CONFIGS = (
  *(f'grpo.py:variant={name}' for name in ('grpo', 'dr_grpo', 'dapo', 'gspo')),
  *(f'grpo.py:variant={name}' for name in ('gmpo', 'cispo', 'sapo')),
  'rloo.py', 'reinforce_pp.py', 'reinforce_pp.py:variant=baseline',
  'grpo.py:loss=vespo', 'grpo.py:variant=dapo,loss=sapo',
  'grpo.py:variant=sapo,loss=clipped_policy',
  'remax.py', 'raft.py', 'raft.py:min_score=0.5',
  'online_dpo.py', 'online_dpo.py:loss=ipo',
  'online_dpo.py:variant=iterative', 'online_dpo.py:variant=xpo',
  'online_dpo.py:variant=nash_md', 'llama3_rounds.py',
)  # fmt: skip


@pytest.mark.parametrize('source', CONFIGS)
@pytest.mark.parametrize('size', ['tiny', 'smollm2'])
def test_a_config_gives_what_its_algorithm_takes(source, size):
  name, _, arg = source.partition(':')
  config = configs.load(f'configs/{name}:size={size},{arg}')
  checks.check_config(config)
  algorithm = assemble.find_algorithm(config.algorithm)
  kw = checks.algorithm_arguments(algorithm, config)
  trained, frozen = algorithm.roles(**kw)
  assert trained == ('policy',) and 'reward' in frozen
  # All that can be tuned is a key, to be set on the command line.
  given = checks.keywords(algorithm.make_step)
  if hasattr(algorithm, 'find_loss'):
    given += checks.keywords(algorithm.find_loss(kw['loss']))
  fixed = (*checks.GIVEN, 'dual_clip')
  assert set(given) - set(kw) <= set(fixed)


@pytest.mark.parametrize('source', ['grpo.py', 'ppo.py'])
def test_a_dual_clip_is_a_key_where_it_is_asked_for(source):
  assert 'dual_clip' not in configs.load(f'configs/{source}').algorithm_kw
  config = configs.load(f'configs/{source}:dual_clip=3')
  algorithm = assemble.find_algorithm(config.algorithm)
  assert checks.algorithm_arguments(algorithm, config)['dual_clip'] == 3
  with pytest.raises(ValueError, match='loss=cispo'):
    configs.load('configs/grpo.py:loss=cispo,dual_clip=3')


def test_a_least_score_is_set_on_the_command_line():
  config = configs.load(
    'configs/raft.py', ['--config.algorithm_kw.min_score=0.5']
  )
  assert config.algorithm_kw.min_score == 0.5


@pytest.mark.parametrize('kw, match', [
  (dict(minibatches=16), None),  # Of 64 rows, though of 8 prompts.
  (dict(minibatches=24), r'from 64 rows \(data.batch_size is 8\)'),
  (dict(rounds=2, minibatches=32), None),
  (dict(rounds=3, minibatches=1), 'does not divide into algorithm_kw.rounds'),
])  # fmt: skip
def test_what_divides_are_the_rows_that_are_learned_from(kw, match):
  config = configs.load('configs/grpo.py:group=8')
  with config.unlocked():
    config.data.batch_size = 8
    config.algorithm_kw.update(kw)
  given = config, grpo, dict(config.algorithm_kw), worlds.make_mesh()
  if match is None:
    checks.check_batch(*given)
  else:
    with pytest.raises(ValueError, match=match):
      checks.check_batch(*given)


@pytest.mark.slow
def test_a_run_in_rounds_goes_on_from_within_one(tmp_path):
  """Through the loop: what a round keeps is stored and read with the state."""

  def config_of(total):
    config = configs.load('configs/llama3_rounds.py:sft_steps=2,dpo_steps=2')
    with config.unlocked():
      config.total_steps = total
      config.init_from, config.role_from.reward = '', ''
      config.rewards = {'gold': dict(kind='checker', name='gold', workers=1)}
      config.model.update(
        width=16, depth=1, num_heads=2, num_kv_heads=2, head_dim=8,
        mlp_width=16, remat='none',
      )  # fmt: skip
      config.data.update(
        path='synthetic:prompts?n=32', heldout_path='', batch_size=8
      )
      config.algorithm_kw.max_new_tokens = 4
      config.log.tensorboard = False
    return config

  for total in (3, 5):  # The third step is one of DPO, in the first round.
    run.train(config_of(total), tmp_path / 'twice')
  run.train(config_of(5), tmp_path / 'whole')
  lines = lambda name: [
    {k: v for k, v in row.items() if k not in ('seconds',)}
    for row in metrics.read(tmp_path / name)
    if 'loss' in row
  ]
  assert lines('twice') == lines('whole') and len(lines('whole')) == 5
  assert [row['round/in_dpo'] for row in lines('whole')] == [0, 0, 1, 1, 0]
