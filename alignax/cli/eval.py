"""`alignax eval`: measure a trained run on its held-out rows.

  alignax eval --config=configs/dpo.py:size=tiny --workdir=runs/dpo

Nothing is trained: the newest checkpoint is read, and the numbers are printed
with 95 % intervals and written to WORKDIR/eval.json. With
--config.data.heldout_path=FILE it is measured on other rows.
"""

import argparse
import contextlib
import json
import math
import pathlib

from alignax.cli import configs


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
    prog='alignax eval',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--config', required=True, help='FILE.py[:ARGS], as in training')
  add('--workdir', required=True, help='directory of the run')
  add('--samples', type=int, default=64, help='responses to draw and score')
  args, overrides = parser.parse_known_args(argv)
  workdir = pathlib.Path(args.workdir)
  check(workdir)
  config = configs.load(args.config, overrides)
  adopt(config, workdir)
  step, estimates = evaluate(config, workdir, args.samples)
  print(table(estimates))
  path = workdir / 'eval.json'
  numbers = {name: e._asdict() for name, e in estimates.items()}
  text = json.dumps({'step': step, 'metrics': numbers}, indent=2)
  # NaN is no JSON; an unknown end of an interval is null.
  path.write_text(text.replace('NaN', 'null') + '\n')
  print(f'\nstep {step}: {path}')
  return 0


def check(workdir: pathlib.Path):
  if not (workdir / 'config.json').exists():
    raise FileNotFoundError(
      f'{workdir} is no directory of a run: it has no config.json. Train it '
      'first: alignax train with the same --config and --workdir.'
    )
  from alignax import checkpoint

  if checkpoint.latest_step(workdir / 'checkpoints') is None:
    raise FileNotFoundError(f'{workdir} has no checkpoint yet.')


def adopt(config, workdir: pathlib.Path):
  """Takes from the run where its roles started: stages are not run again."""
  stored = json.loads((workdir / 'config.json').read_text())
  config.init_from = stored['init_from']
  config.role_from.update(stored['role_from'])
  config.lora.update(stored.get('lora', {}))  # Older runs have no such key.
  for name, reward in config.rewards.items():
    adopt_sources(reward, stored.get('rewards', {}).get(name, {}))
  if stored['algorithm'] != config.algorithm:
    raise ValueError(
      f'{workdir} was trained by {stored["algorithm"]}, and the config is of '
      f'{config.algorithm}.'
    )


def adopt_sources(reward, stored: dict):
  """Where the models of a reward are, as the run found them."""
  if 'source' in reward and 'source' in stored:
    reward.source = stored['source']
  if 'members' in reward and 'members' in stored:
    reward.members = type(reward.members)(stored['members'])


def evaluate(config, workdir, samples: int):
  """The step of the newest checkpoint, and an estimate of every number."""
  import jax

  from alignax import (
    assemble,
    checkpoint,
    checks,
    data,
    lora_roles,
    reading,
    scoring,
    sharding,
  )
  from alignax.evals import samples as samples_eval

  algorithm = assemble.find_algorithm(config.algorithm)
  kw = checks.algorithm_arguments(algorithm, config)
  mesh = sharding.make_mesh(**config.mesh)
  samples_eval.check(config)
  tokenizer = data.load_tokenizer(workdir)
  with config.unlocked():
    config.model.vocab_size = config.model.get('vocab_size') or len(tokenizer)
    # A row a document: observations are then independent, and counted.
    config.data.packing = False
  found = reading.load_data(config, algorithm, kw, tokenizer)
  if not found.heldout:
    raise ValueError(
      'There are no held-out rows: set --config.data.heldout=N or '
      '--config.data.heldout_path=FILE.'
    )
  checkpoints = workdir / 'checkpoints'
  with contextlib.ExitStack() as stack:
    stack.enter_context(jax.set_mesh(mesh))
    scorer = scoring.load(config, mesh, tokenizer, stack)
    kw |= scorer.arguments(found.batches.rows)
    roles = lora_roles.load_roles(
      config, algorithm, kw, mesh, len(tokenizer), workdir
    )
    roles = scorer.beside(roles)
    trained = {
      role: checkpoint.load_role(checkpoints, role, abstract(params))
      for role, params in roles.trained.items()
    }
    roles = roles._replace(trained=trained)
    estimates = on_heldout(config, algorithm, kw, roles, found, mesh)
    score_fn = scorer.score_fn(found.heldout.rows, single=True)
    estimates |= on_samples(config, roles, found, tokenizer, samples, score_fn)
  if not estimates:
    raise ValueError(f'{config.algorithm} has nothing that is measured.')
  return checkpoint.latest_step(checkpoints), estimates


def abstract(params):
  """What saved parameters look like, and where they are to live."""
  import jax

  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    params,
  )


def on_heldout(config, algorithm, kw, roles, found, mesh) -> dict:
  """Estimates of what the algorithm measures on held-out rows."""
  import jax
  import numpy as np

  from alignax import heldout, lora_roles
  from alignax.evals import intervals

  whole = heldout.heldout_batch(config, found, mesh)
  if whole is None or not hasattr(algorithm, 'make_eval'):
    return {}
  rows = jax.tree.leaves(whole)[0].shape[0]
  parts = rows // math.gcd(rows, config.data.batch_size)
  kw = {k: v for k, v in kw.items() if k != 'microbatches'}
  measure = algorithm.make_eval(
    roles.models, **kw, **lora_roles.join_kw(roles), microbatches=parts,
    by_row=True,
  )  # fmt: skip
  key = jax.random.key(config.seed + 2)
  sums = jax.device_get(measure(roles.trained, roles.frozen, whole, key))
  weights = np.asarray(sums.pop('weight'), np.float64)
  used = weights > 0  # Rows that only fill up the batch weigh nothing.
  return {
    f'heldout/{name}': intervals.estimate(
      # What is 0 or 1 is that exactly, whatever the weight was rounded to.
      np.round(values[used] / weights[used], 6),
      weights[used],
    )
    for name, values in sums.items()
  }


def on_samples(config, roles, found, tokenizer, number: int, score_fn) -> dict:
  """Estimates of the scores of responses to held-out prompts."""
  from alignax import reading
  from alignax.evals import intervals, samples

  if not number:
    return {}
  rows, _ = samples.draw(
    roles.models,
    roles.trained,
    roles.frozen,
    tokenizer,
    found.heldout,
    number=number,
    seed=config.seed,
    **config.evals.sampling,
    scorer=config.evals.scorer,
    stop_ids=reading.stop_ids(tokenizer),
    score_fn=score_fn,
    join=roles.join,
  )
  columns = {}
  for row in rows:
    scores = row.get('scores')
    more = scores if isinstance(scores, dict) else {}
    names = {'tokens': 'length', 'finished': 'finished', 'reward': 'reward'}
    plain = {new: row[old] for old, new in names.items() if old in row}
    parts = {f'rewards/{k}': v for k, v in row.get('rewards', {}).items()}
    for name, value in (plain | more | parts).items():
      if value is not None:  # A reward may have no score for it.
        columns.setdefault(name, []).append(float(value))
  return {
    f'samples/{name}': intervals.estimate(values)
    for name, values in columns.items()
  }


def table(estimates) -> str:
  """Names, means and intervals, in columns."""
  width = max(len(name) for name in estimates)
  lines = [f'{"":<{width}}  {"mean":>9}  {"95 % interval":>20}  {"n":>5}']
  for name, (mean, low, high, n) in sorted(estimates.items()):
    interval = f'{low:.4g} to {high:.4g}' if low == low else 'not known'
    lines.append(f'{name:<{width}}  {mean:>9.4g}  {interval:>20}  {n:>5}')
  return '\n'.join(lines)
