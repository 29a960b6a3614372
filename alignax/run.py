"""The one training loop. It knows no algorithm."""

import contextlib
import hashlib
import json
import math
import pathlib
import signal

import jax
import numpy as np
from tqdm import tqdm

from alignax import assemble, checkpoint, data, metrics, models, sharding
from alignax.evals import samples as samples_eval

# Streams of a run's seed; `assemble` and `evals.samples` have one each, too.
STEPS, EVALS = 1, 2


class NotFinite(RuntimeError):
  """Too many updates in a row had a loss or gradient that was not finite."""


class Stopped(RuntimeError):
  """The process was asked to stop before a run was complete."""


def train(config, workdir, *, load_config=None) -> dict:
  """Trains what a config describes; goes on where an earlier try ended.

  Args:
    config: see `configs/common.py`.
    workdir: of the run; everything it writes is in there.
    load_config: maps 'configs/NAME.py:ARGS' to a config, for roles that start
      from a run of their own.

  Returns:
    The last line of metrics.

  Raises:
    Stopped: asked to, by a signal; the same call goes on.
  """
  workdir = pathlib.Path(workdir)
  # Whatever can be wrong is found before a stage takes its time.
  algorithm = assemble.find_algorithm(config.algorithm)
  kw = assemble.algorithm_arguments(algorithm, config)
  tx = assemble.make_optimizer(config, algorithm, kw)
  mesh = sharding.make_mesh(**config.mesh)
  assemble.check_model(config)
  assemble.check_batch(config, kw, mesh)
  workdir.mkdir(parents=True, exist_ok=True)
  config = run_stages(config, workdir, load_config)
  write_description(config, workdir)

  tokenizer = assemble.load_tokenizer(config)
  with config.unlocked():
    config.model.vocab_size = config.model.get('vocab_size') or len(tokenizer)
  found = assemble.load_data(config, algorithm, kw, tokenizer)
  report_data(found, workdir)
  if 'stop_ids' in kw and not kw['stop_ids']:
    kw['stop_ids'] = assemble.stop_ids(tokenizer)

  with jax.set_mesh(mesh):
    roles = assemble.load_roles(config, algorithm, kw, mesh, len(tokenizer))
    main = algorithm.TRAINED[0]
    models.write_description(workdir, roles.models[main])
    tokenizer.save_pretrained(workdir)
    found = with_reference(config, algorithm, roles, found, mesh, workdir)
    state, where = assemble.make_state(config, algorithm, kw, roles, tx, mesh)
    step_fn = algorithm.make_step(
      roles.models, tx, **kw, ema_decay=config.ema_decay, state_sharding=where
    )
    evaluate = make_evaluation(
      config, algorithm, kw, roles, found, tokenizer, mesh, workdir
    )
    saver = make_saver(config, workdir)
    start = saver.latest or 0
    if start:
      state = saver.restore(abstract(state, where))
    return loop(
      config, workdir, mesh, step_fn, state, roles.frozen, found, evaluate,
      saver, start,
    )  # fmt: skip


def loop(config, workdir, mesh, step_fn, state, frozen, found, evaluate, saver,
         start) -> dict:  # fmt: skip
  """Steps, writes, evaluates, saves."""
  key = jax.random.fold_in(jax.random.key(config.seed), STEPS)
  total = config.total_steps
  due = lambda every: step == total or (every > 0 and step % every == 0)
  metrics.drop_samples_after(workdir, start)
  bar = progress(config, start, total)
  with contextlib.ExitStack() as stack:
    stack.enter_context(contextlib.closing(saver))
    stack.enter_context(contextlib.closing(bar))
    writer = stack.enter_context(
      contextlib.closing(make_writer(config, workdir, saver, start))
    )
    stopping = stack.enter_context(stop_signals())
    if start == 0:
      evaluate_into(writer, config, evaluate, 0, state.params, frozen)
    feed = with_ptx(found, start, total)
    for step, batch in zip(range(start + 1, total + 1), feed):
      tokens = count_tokens(batch)
      batch = sharding.shard_batch(mesh, batch)
      state, numbers = step_fn(state, frozen, batch, key)
      written = writer.write(step, numbers, tokens=tokens)
      show(bar, written)
      check_finite(config, found, written)
      evals = None
      if due(config.evals.every):
        check_finite(config, found, writer.flush())
        evals = evaluate_into(
          writer, config, evaluate, step, state.params, frozen
        )
      if stopping or due(config.checkpoint.every):
        check_finite(config, found, writer.flush())
        saver.save(step, state, evals, {'tokens': writer.tokens})
      if stopping and step < total:
        raise Stopped(
          f'Stopped at step {step} of {total}, which is saved: the same '
          'command goes on from there.'
        )
  lines = metrics.read(workdir)
  return lines[-1] if lines else {}


def make_writer(config, workdir, saver, start: int) -> metrics.Writer:
  return metrics.Writer(
    workdir,
    start=start,
    tokens=saver.note(start)['tokens'] if start else 0,
    every=config.log.every,
    tensorboard=config.log.tensorboard,
  )


def evaluate_into(writer, config, evaluate, step: int, params, frozen):
  """Evaluates and writes a line; None where there is nothing to evaluate."""
  numbers = evaluate(step, params, frozen)
  best = config.checkpoint.best_metric.lstrip('-')
  if config.checkpoint.keep_best and best not in numbers:
    raise ValueError(
      f'checkpoint.best_metric is {best!r}, which is not measured'
      f'{assemble.nearest(best, numbers)}.'
    )
  if numbers:
    writer.line(step, numbers)
  return numbers or None


def run_stages(config, workdir, load_config):
  """Runs the configs that roles start from, once, and points to their runs.

  `init_from='configs/sft.py:size=tiny'` names a run instead of a directory: it
  is made in `workdir/stages`, and not again when it is complete.
  """

  def resolve(source):
    if '.py' not in source:
      return source
    if load_config is None:
      raise ValueError(f'{source} is a config, and nothing here loads configs.')
    stage = load_config(source)
    digest = hashlib.sha256(stage.to_json().encode()).hexdigest()[:8]
    name = pathlib.Path(source.split(':')[0]).stem
    directory = workdir.absolute() / 'stages' / f'{name}-{digest}'
    reached = checkpoint.latest_step(directory / 'checkpoints') or 0
    if reached < stage.total_steps:
      print(f'first: {source} -> {directory}', flush=True)
      train(stage, directory, load_config=load_config)
    return str(directory)

  config = config.copy_and_resolve_references()
  config.init_from = resolve(config.init_from)
  for role, source in config.role_from.items():
    config.role_from[role] = resolve(source)
  return config


def write_description(config, workdir: pathlib.Path):
  """Writes the resolved config, and what the run runs with."""
  if jax.process_index():
    return
  path = workdir / 'config.json'
  new = json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True)
  if path.exists() and (old := path.read_text()) != new + '\n':
    changed = _differences(json.loads(old), json.loads(new))
    # Longer runs and other logging go on from a checkpoint; little else does.
    if any(not c.startswith(RESUMABLE) for c in changed):
      raise ValueError(
        f'{workdir} holds a run of another config; it differs in '
        f'{", ".join(changed)}. Take another workdir, or delete this one.'
      )
  metrics.write_text(path, new + '\n')
  text = json.dumps(metrics.versions(), indent=2)
  metrics.write_text(workdir / 'versions.json', text + '\n')


RESUMABLE = ('total_steps', 'checkpoint', 'log', 'evals', 'mesh', 'max_skipped')


def _differences(old: dict, new: dict, prefix: str = '') -> list[str]:
  found = []
  for key in sorted(old.keys() | new.keys()):
    a, b = old.get(key), new.get(key)
    if isinstance(a, dict) and isinstance(b, dict):
      found += _differences(a, b, f'{prefix}{key}.')
    elif a != b:
      found.append(f'{prefix}{key}')
  return found


def report_data(found, workdir: pathlib.Path):
  """Prints and keeps what was found in the data."""
  if jax.process_index():
    return
  text = '\n\n'.join(
    f'{name} data\n{report.table()}' for name, report in found.reports.items()
  )
  print(text, flush=True)
  (workdir / 'data.txt').write_text(text + '\n')


def with_reference(config, algorithm, roles, found, mesh, workdir):
  """Computes reference log-probs once for the whole data set, if asked to.

  They are kept in the examples, and in the run's directory for when it goes
  on; the reference is dropped from memory.
  """
  if not config.data.precompute_ref:
    return found
  if not hasattr(algorithm, 'reference_logps'):
    raise ValueError(
      f'data.precompute_ref: {config.algorithm} has no reference log-probs.'
    )
  compute = algorithm.reference_logps(roles.models['ref'])
  ref = roles.frozen.pop('ref')
  path = workdir / 'reference.npz'
  sets = {'training': found.batches.examples, 'heldout': found.heldout}
  sets = {name: examples for name, examples in sets.items() if examples}
  if not path.exists():
    logps = {
      name: reference_logps(config, found, examples, mesh, compute, ref)
      for name, examples in sets.items()
    }
    new = path.with_name('new-reference.npz')
    np.savez(new, **logps)
    new.replace(path)
  with np.load(path) as logps:
    for name, examples in sets.items():
      data.attach_ref_logps(examples, logps[name])
  return found


def reference_logps(config, found, examples, mesh, compute, ref) -> np.ndarray:
  """Log-probs of the responses of every example, [examples, 2]."""
  one_by_one = data.Batches(
    examples,
    kind=found.batches.kind,
    length=config.data.length,
    batch_size=config.data.batch_size,
    seed=0,
    shuffle=False,
    repeat=False,
  )
  values = []
  for batch in tqdm(one_by_one, desc='reference', unit='batch'):
    batch = sharding.shard_batch(mesh, batch)
    values.append(np.asarray(compute(ref, batch))[..., 0])
  return np.concatenate(values)[: len(examples)]


def make_evaluation(config, algorithm, kw, roles, found, tokenizer, mesh,
                    workdir):  # fmt: skip
  """Makes `evaluate(step, params, frozen) -> {name: number}`."""
  whole = heldout_batch(config, found, mesh)
  on_heldout = None
  if whole is not None and hasattr(algorithm, 'make_eval'):
    rows = jax.tree.leaves(whole)[0].shape[0]
    parts = rows // math.gcd(rows, config.data.batch_size)
    given = {k: v for k, v in kw.items() if k != 'microbatches'}
    on_heldout = algorithm.make_eval(
      roles.models, **given, microbatches=parts
    )
  key = jax.random.fold_in(jax.random.key(config.seed), EVALS)

  def evaluate(step, params, frozen):
    numbers = {}
    if on_heldout is not None:
      result = on_heldout(params, frozen, whole, key)
      numbers |= {f'heldout/{k}': float(v) for k, v in result.items()}
    if config.evals.samples and found.heldout is not None:
      rows, scores = samples_eval.draw(
        roles.models, params, frozen, tokenizer, found.heldout,
        number=config.evals.samples, seed=config.seed, **config.evals.sampling,
        scorer=config.evals.scorer, stop_ids=assemble.stop_ids(tokenizer),
      )  # fmt: skip
      metrics.append_samples(workdir, [{'step': step, **r} for r in rows])
      numbers |= {f'samples/{k}': v for k, v in scores.items()}
    return numbers

  return evaluate


def heldout_batch(config, found, mesh):
  """The whole held-out set as one batch, padded with empty rows."""
  if found.heldout is None or found.batches.kind == 'prompts':
    return None
  rows = math.prod(mesh.shape[axis] for axis in sharding.BATCH_AXES)
  size = math.lcm(config.data.batch_size, rows)
  batches = data.Batches(
    found.heldout,
    kind=found.batches.kind,
    length=config.data.length,
    batch_size=size,
    seed=0,
    packing=config.data.packing,
    shuffle=False,
    repeat=False,
  )
  parts = [batches[i] for i in range(len(batches))]
  whole = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
  return sharding.shard_batch(mesh, whole)


def with_ptx(found, start: int, total: int):
  """Batches from a step on, with pretraining text where it is mixed in."""
  feed = found.batches.iterate(start, total)
  if found.ptx is None:
    return feed
  ptx = found.ptx.iterate(start, total)
  return (batch | {'ptx': text} for batch, text in zip(feed, ptx))


def count_tokens(batch) -> int:
  """Tokens in a batch on all hosts, padding left out."""
  return int(np.sum(batch['segments'] > 0)) * jax.process_count()


def check_finite(config, found, written):
  """Stops a run that has skipped too many updates in a row."""
  if not written or 'skipped_in_a_row' not in written:
    return
  if written['skipped_in_a_row'] >= config.max_skipped > 0:
    step = written['step']
    raise NotFinite(
      f'The last {written["skipped_in_a_row"]:.0f} updates had a loss or '
      f'gradient that was not finite, and were skipped. The batch of step '
      f'{step} is {found.batches.where(step - 1)}. The last checkpoint is '
      'good; look at those rows, or lower optimizer.learning_rate.'
    )


def make_saver(config, workdir: pathlib.Path) -> checkpoint.Checkpointer:
  c = config.checkpoint
  return checkpoint.Checkpointer(
    workdir / 'checkpoints',
    keep=c.keep,
    keep_best=c.keep_best,
    best_metric=c.best_metric,
  )


def abstract(state, where):
  """Shapes of a state, and where it is to live."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    state,
    where,
  )


def progress(config, start: int, total: int) -> tqdm:
  name = config.algorithm.rsplit('.', 1)[-1]
  return tqdm(
    total=total, initial=start, desc=name, unit='step', dynamic_ncols=True,
    disable=jax.process_index() > 0, mininterval=0.5,
  )  # fmt: skip


def show(bar: tqdm, written):
  bar.update(1)
  if written:
    shown = ('loss', 'rewards/accuracy', 'objective/score', 'objective/kl')
    bar.set_postfix(
      {k.split('/')[-1]: f'{written[k]:.3g}' for k in shown if k in written},
      refresh=False,
    )


@contextlib.contextmanager
def stop_signals():
  """A list that is no longer empty once the process was asked to stop.

  The step in flight ends, a checkpoint is written, and the same command goes
  on later: what a preempted machine has seconds for.
  """
  asked = []

  def handler(number, frame):
    del frame
    if asked and number == signal.SIGINT:  # Ctrl-C again: at once.
      raise KeyboardInterrupt
    asked.append(number)

  old = {}
  with contextlib.suppress(ValueError):  # Not the main thread: nobody asks.
    for number in (signal.SIGTERM, signal.SIGINT):
      old[number] = signal.signal(number, handler)
  try:
    yield asked
  finally:
    for number, previous in old.items():
      signal.signal(number, previous)

