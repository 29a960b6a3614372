"""`alignax quickstart`: the story of alignment, on a world with a known truth.

A small transformer is pretrained on raw text, in which a question is mostly
followed by more questions; SFT makes it answer; annotators compare its answers;
a reward model learns what they like; DPO and PPO both start from the SFT model.
Everything is measured by the gold score that the annotators only see with
noise, on instructions that no stage was trained on.
"""

import argparse
import hashlib
import json
import pathlib
import random
import time
from typing import NamedTuple

from alignax.cli import configs

# By model, the stages that it pays for: PPO cannot do without its reward model.
MODELS = {
  'base': ('pretrain',),
  'SFT': ('sft',),
  'DPO': ('dpo',),
  'PPO': ('reward', 'ppo'),
}
CONFIG = 'configs/quickstart.py:stage={stage},seed={seed}'
PAIRS = 4500  # Instructions whose two responses annotators compare.


class Measured(NamedTuple):
  """What one model wrote to the held-out prompts, and what that is worth."""

  texts: list[str]
  gold: list[dict]
  kl: list[float]
  lengths: list[int]


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
    prog='alignax quickstart',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', default='runs/quickstart')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--prompts', type=int, default=512, help='held out')
  parser.add_argument('--trace', action='store_true')
  args = parser.parse_args(argv)
  workdir = pathlib.Path(args.workdir) / f'seed{args.seed}'
  tell(workdir, args.seed, args.prompts)
  return 0


def tell(workdir: pathlib.Path, seed: int, prompts: int) -> dict:
  """Runs every stage, measures, reports; returns the table by model."""
  from alignax.data import synthetic

  started = time.monotonic()
  heldout = synthetic.rows('prompts', n=prompts, seed=seed, split='heldout')
  workdir, found, runs = workdir.absolute(), {}, {}

  def stage(name, **starts):
    runs[name] = run_stage(workdir, name, seed, **starts)

  stage('pretrain')
  stage('sft', init_from=runs['pretrain'])
  for model, name in (('base', 'pretrain'), ('SFT', 'sft')):
    found[model] = measure(runs[name], runs['sft'], heldout, seed)
    say(model, found)
  pairs = workdir / f'{PAIRS}-pairs-of-{pathlib.Path(runs["sft"]).name}.jsonl'
  if not pairs.exists():
    compare(runs['sft'], pairs, n=PAIRS, seed=seed)
  start = dict(init_from=runs['sft'], path=str(pairs))
  stage('reward', **start)
  stage('dpo', **start)
  found['DPO'] = measure(runs['dpo'], runs['sft'], heldout, seed)
  say('DPO', found)
  stage('ppo', init_from=runs['sft'], reward=runs['reward'])
  found['PPO'] = measure(runs['ppo'], runs['sft'], heldout, seed)
  say('PPO', found)
  rows = [summary(model, found, runs) for model in MODELS]
  page = write_report(workdir, rows, found, heldout, runs)
  result = {row['model']: row for row in rows}
  (workdir / 'result.json').write_text(json.dumps(result, indent=2) + '\n')
  print_table(rows)
  print(f'\nin {time.monotonic() - started:.0f} seconds. The page: {page}')
  return result


def run_stage(workdir, name, seed, *, init_from='', reward='', path='') -> str:
  """Trains one stage, from the folders of those before; returns its own.

  That is named by a digest of its config and of theirs, so that nothing that an
  earlier try left is taken for what another config would have made.
  """
  from alignax import complete, run

  config = configs.load(CONFIG.format(stage=name, seed=seed))
  where = workdir / f'{name}-{digest(config, init_from, reward, path)}'
  config.init_from, config.role_from.reward = init_from, reward
  config.data.path = path or config.data.path
  if complete.is_complete(where, config.total_steps):
    print(f'\n{name}: done before, in {where}', flush=True)
    return str(where)
  others = [p.name for p in sorted(workdir.glob(f'{name}-*')) if p != where]
  if others and not where.exists():
    print(f'\n{name}: another config than that of {", ".join(others)}, or '
          'another start: trained anew.')  # fmt: skip
  print(f'\n{name}: {describe(config)}', flush=True)
  run.train(config, where, load_config=configs.load)
  return str(where)


def digest(config, *starts: str) -> str:
  """Of a config and what it starts from, wherever the workdir is."""
  names = [pathlib.Path(start).name for start in starts]
  text = json.dumps([config.to_json(), names])
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def describe(config) -> str:
  d = config.data
  return f'{config.total_steps} steps of {d.batch_size} rows, {d.path}'


def draw(model, params, tokenizer, prompts, *, seed, max_new_tokens=24):
  """Samples a response to every prompt, at temperature 1."""
  import jax

  from alignax import reading, sampling

  tokens = [sampling.encode(tokenizer, row['prompt']) for row in prompts]
  rows = sampling.sample(
    model,
    params,
    sampling.left_pad(tokens),
    jax.random.key(seed),
    sampling.make_sampling(stop_ids=reading.stop_ids(tokenizer)),
    max_new_tokens=max_new_tokens,
  )
  rows = jax.device_get(rows)
  texts = [
    tokenizer.decode(targets[mask], skip_special_tokens=True)
    for targets, mask in zip(rows['targets'], rows['mask'])
  ]
  return texts, rows


def measure(where: str, reference: str, prompts, seed: int) -> Measured:
  """Samples held-out responses; their gold scores, KL and length."""
  import jax
  import numpy as np

  from alignax import data, models
  from alignax.evals.samples import TOKENS

  model, params = models.load(where)
  tokenizer = data.load_tokenizer(where)
  texts, rows = draw(model, params, tokenizer, prompts, seed=seed + 17)
  _, ref = models.load(reference)
  batch = {k: rows[k] for k in TOKENS}
  ref_logps = np.asarray(jax.jit(model.logps)(ref, batch))
  return Measured(
    texts,
    [gold(row, text) for row, text in zip(prompts, texts)],
    np.sum(rows['logps'] - ref_logps, axis=1).tolist(),
    rows['lengths'].tolist(),
  )


def gold(row, text) -> dict:
  from alignax.data import synthetic

  answered = float(synthetic.answered(row, text))
  return synthetic.gold_score(row, text) | {'answered': answered}


def compare(where: str, path: pathlib.Path, *, n: int, seed: int):
  """Writes pairs of the SFT model's responses, as annotators chose."""
  from alignax import data, models
  from alignax.data import synthetic

  print(f'\nannotators compare two responses to {n} instructions', flush=True)
  model, params = models.load(where)
  tokenizer = data.load_tokenizer(where)
  prompts = synthetic.rows('prompts', n=n, seed=seed + 1)
  texts = [
    draw(model, params, tokenizer, prompts, seed=seed + 100 + i)[0]
    for i in range(2)
  ]
  rng, lines = random.Random(seed), []
  for row, *pair in zip(prompts, *texts):
    if pair[0] == pair[1]:
      continue
    chosen, _ = synthetic.prefer(row, *pair, rng=rng)
    turn = lambda i, pair=pair: [{'role': 'assistant', 'content': pair[i]}]
    lines.append(row | {'chosen': turn(chosen), 'rejected': turn(1 - chosen)})
  new = path.with_suffix('.new')
  new.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  new.replace(path)


def summary(model: str, found: dict, runs: dict) -> dict:
  """A row of the table."""
  from alignax.evals import intervals

  own, sft = found[model], found['SFT']
  total = [g['total'] for g in own.gold]
  wins = [
    0.5 + 0.5 * ((a > b) - (a < b))
    for a, b in zip(total, (g['total'] for g in sft.gold))
  ]
  return {
    'model': model,
    'answered': intervals.estimate([g['answered'] for g in own.gold]),
    'gold score': intervals.estimate(total),
    'win rate against SFT': (
      None if model == 'SFT' else intervals.bootstrap(wins)
    ),
    'KL to SFT': intervals.bootstrap(own.kl),
    'tokens': sum(own.lengths) / len(own.lengths),
    'seconds': seconds(runs[stage] for stage in MODELS[model]),
  }


def seconds(runs) -> int | None:
  """What training took in all tries; None if a run does not say."""
  from alignax import metrics

  last = [metrics.read(where)[-1:] for where in runs]
  if not all(last):
    return None
  return round(sum(line['seconds'] for (line,) in last))


def say(model: str, found: dict):
  own = found[model]
  mean = lambda key: sum(g[key] for g in own.gold) / len(own.gold)
  print(
    f'{model}: answers {mean("answered"):.0%} of held-out instructions, '
    f'gold score {mean("total"):.3f}',
    flush=True,
  )


def print_table(rows: list[dict]):
  """The table, for a terminal."""
  columns = list(rows[0])
  cells = [columns] + [[_cell(row[c]) for c in columns] for row in rows]
  widths = [max(map(len, column)) for column in zip(*cells)]
  print()
  for line in cells:
    print('  '.join(text.ljust(w) for text, w in zip(line, widths)).rstrip())


def _cell(value) -> str:
  if value is None:
    return '-'
  if isinstance(value, tuple):
    return f'{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]'
  if isinstance(value, float):
    return f'{value:.1f}'
  return str(value)


def write_report(workdir, rows, found, heldout, runs) -> pathlib.Path:
  """The page: table, curves of every stage, samples side by side."""
  from alignax import metrics, report

  lines = {stage: metrics.read(path) for stage, path in runs.items()}
  curve = lambda stage, key: [
    (line['step'], line[key]) for line in lines[stage] if key in line
  ]
  curves = {
    'loss of the language model': {
      'pretraining': curve('pretrain', 'loss'), 'SFT': curve('sft', 'loss')},
    'accuracy on pairs': {
      'reward model': curve('reward', 'rewards/accuracy'),
      'DPO': curve('dpo', 'rewards/accuracy')},
    'PPO: reward': {'PPO': curve('ppo', 'objective/score')},
    'PPO: KL to SFT': {'PPO': curve('ppo', 'objective/kl')},
    'PPO: length': {'PPO': curve('ppo', 'objective/length')},
  }  # fmt: skip
  samples = [
    {
      'prompt': '\n'.join(m['content'] for m in row['prompt']),
      'responses': {m: found[m].texts[i] for m in MODELS},
      'scores': {m: found[m].gold[i]['total'] for m in MODELS},
    }
    for i, row in enumerate(heldout[:24])
  ]
  return report.write(
    workdir / 'report.html',
    'Alignment in a small world',
    report.table('Results', rows, note=NOTE.format(n=len(heldout))),
    report.curves('Curves', curves),
    report.samples('Samples', samples, note='The gold score stands beside.'),
    lead=LEAD,
  )


LEAD = (
  'A small transformer learns to answer (SFT), then what annotators like (DPO, '
  'and PPO against a reward model). The annotators see the gold score only '
  'with noise; here everything is measured by the gold score itself.'
)
NOTE = (
  'On {n} instructions that no stage was trained on, sampled at temperature 1; '
  '95 % intervals. A tie is half a win. KL in nats a response. Seconds are of '
  'training, compilation included; those of PPO include its reward model.'
)
