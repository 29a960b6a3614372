"""The one training loop. It knows no algorithm."""

import contextlib
import pathlib

import jax
import numpy as np
from tqdm import tqdm

from alignax import (
  assemble,
  checkpoint,
  checks,
  complete,
  describe,
  heldout,
  lora_roles,
  metrics,
  models,
  monitoring,
  preflight,
  probing,
  reading,
  reference,
  scoring,
  sharding,
  stages,
  stopping,
)
from alignax.alone import alone

STEPS = 1  # Stream of the seed; `role_params`, `heldout`, `evals` have others.


class NotFinite(RuntimeError):
  """Too many updates in a row had a loss or gradient that was not finite."""


class Stopped(RuntimeError):
  """The process was asked to stop before a run was complete."""


def train(config, workdir, *, load_config=None, beside=None) -> dict:
  """Trains what a config describes; goes on where an earlier try ended.

  Args:
    config: see `configs/common.py`.
    workdir: of the run; everything it writes is in there.
    load_config: maps 'configs/NAME.py:ARGS' to a config, for roles that start
      from a run of their own.
    beside: where those runs are made; default: `workdir/stages`.

  Returns:
    The last line of metrics.

  Raises:
    Stopped: asked to, by a signal; the same call goes on.
  """
  checks.check_workdir(workdir)
  checked = preflight.check(config)
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  with alone(workdir):
    if note := complete.ended(workdir):
      print(f'{workdir} ended at step {note["step"]}: {note["reason"]}.')
      return last_line(workdir)
    if load_config is not None:
      preflight.check_stages(config, load_config)
    beside = beside or workdir / 'stages'
    return train_checked(config, checked, workdir, load_config, beside)


def train_checked(config, checked, workdir, load_config, beside) -> dict:
  """Stages, data, models and the step; then the loop."""
  algorithm, kw, tx, mesh = checked
  config = run_stages(config, beside, load_config)
  describe.write_description(config, workdir)

  tokenizer = reading.load_tokenizer(config)
  with config.unlocked():
    config.model.vocab_size = config.model.get('vocab_size') or len(tokenizer)
  found = reading.load_data(config, algorithm, kw, tokenizer)
  describe.report_data(found, workdir)
  ends = reading.stop_ids(tokenizer)
  if 'stop_ids' in kw:
    ends = kw['stop_ids'] = tuple(kw['stop_ids']) or ends

  with contextlib.ExitStack() as stack:
    stack.enter_context(jax.set_mesh(mesh))
    scorer = scoring.load(config, mesh, tokenizer, stack)
    kw |= scorer.arguments(found.batches.rows)
    roles = lora_roles.load_roles(
      config, algorithm, kw, mesh, len(tokenizer), workdir
    )
    roles = scorer.beside(roles)
    main = algorithm.TRAINED[0]
    models.write_description(workdir, roles.models[main], roles.origin)
    models.save_tokenizer(tokenizer, workdir, ends)
    found = reference.with_reference(
      config, algorithm, roles, found, mesh, workdir
    )
    probe = probing.make_probes(
      config, roles, found, tokenizer, mesh, scorer, workdir
    )
    state, where = assemble.make_state(config, algorithm, kw, roles, tx, mesh)
    step_fn = algorithm.make_step(
      roles.models, tx, **kw, **lora_roles.join_kw(roles),
      ema_decay=config.ema_decay, state_sharding=where,
    )  # fmt: skip
    evaluate = heldout.make_evaluation(
      config, algorithm, kw, roles, found, tokenizer, mesh, workdir, scorer
    )
    saver = make_saver(config, workdir)
    start = saver.latest or 0
    evaluate = probing.with_probes(config, evaluate, probe)
    evaluate = monitoring.watched(config, evaluate, workdir, start)
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
  due = lambda *every: step == total or any(e and step % e == 0 for e in every)
  ended = None
  metrics.drop_samples_after(workdir, start)
  bar = progress(config, start, total)
  with contextlib.ExitStack() as stack:
    stack.enter_context(contextlib.closing(saver))
    stack.enter_context(contextlib.closing(bar))
    writer = stack.enter_context(
      contextlib.closing(make_writer(config, workdir, saver, start))
    )
    stop = stack.enter_context(stopping.requests())
    if start == 0:
      evals = evaluate_into(writer, config, evaluate, 0, state, frozen)
      if config.monitor.stop and saver.latest is None:
        best, _ = monitoring.at_end(config, 0, evals)  # Not where it is NaN.
        saver.save(0, state, evals if best else None, {'tokens': 0})
    feed, before = with_ptx(found, start, total), {}
    for step, batch in zip(range(start + 1, total + 1), feed):
      tokens = count_tokens(batch)
      batch = sharding.shard_batch(mesh, batch)
      state, numbers = step_fn(state, frozen, batch, key)
      # A step that samples its rows counts them itself.
      tokens = numbers.pop('tokens', tokens)
      written = writer.write(step, numbers, tokens=tokens)
      show(bar, written)
      # Of the step before, which is over while this one is computed.
      check_finite(config, found, step - 1, before)
      before, evals = numbers, None
      if due(config.evals.every, config.evals.probes.every):
        writer.flush()
        check_finite(config, found, step, numbers)
        evals = evaluate_into(writer, config, evaluate, step, state, frozen)
      best, ended = monitoring.at_end(config, step, evals)
      asked = stop(step)
      if asked or best or due(config.checkpoint.every):
        writer.flush()
        check_finite(config, found, step, numbers)
        # Of two that are equally good the monitor goes back to the first.
        rated = evals if best or not config.monitor.stop else None
        saver.save(step, state, rated, {'tokens': writer.tokens})
      if ended is not None:
        break
      if asked and step < total:
        raise Stopped(
          f'Stopped at step {step} of {total}, which is saved: the same '
          'command goes on from there.'
        )
  if ended is not None:
    complete.end(workdir, ended, f'monitor.stop warned at step {step}')
  return last_line(workdir)


def last_line(workdir) -> dict:
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


def evaluate_into(writer, config, evaluate, step: int, state, frozen):
  """Evaluates what others would load, the average if there is one.

  Returns:
    The numbers by which checkpoints are kept; None where they are not measured,
    as by probes alone.
  """
  numbers = evaluate(step, state.ema or state.params, frozen)
  best = best_metric(config).lstrip('-')
  whole = step in (0, config.total_steps)
  if config.checkpoint.keep_best and best not in numbers and whole:
    raise ValueError(
      f'checkpoint.best_metric is {best!r}, which is not measured'
      f'{checks.nearest(best, numbers)}.'
    )
  if numbers:
    writer.line(step, numbers)
  return numbers if numbers and (not best or best in numbers) else None


def run_stages(config, where: pathlib.Path, load_config):
  """Runs the configs that roles start from, once, and points to their runs.

  `init_from='configs/sft.py:size=tiny'` names a run instead of a directory: it
  is made in `where`, and not again when it is complete there. Stages of stages
  are made there too: a policy and its reward model may start from one run.
  """

  def resolve(source):
    if not stages.is_config(source):
      return source
    if load_config is None:
      raise ValueError(f'{source} is a config, and nothing here loads configs.')
    stage = load_config(source)
    name = pathlib.Path(source.split(':')[0]).stem
    made = where.absolute() / f'{name}-{stages.digest(stage, load_config)}'
    if not complete.is_complete(made, stage.total_steps):
      print(f'first: {source} -> {made}', flush=True)
      train(stage, made, load_config=load_config, beside=where)
    return str(made)

  return stages.resolved(config, resolve)


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


def check_finite(config, found, step: int, numbers):
  """Stops a run that has skipped too many updates in a row."""
  skipped = int(np.asarray(numbers.get('skipped_in_a_row', 0)))
  if skipped >= config.max_skipped > 0:
    raise NotFinite(
      f'The last {skipped} updates had a loss or '
      f'gradient that was not finite, and were skipped. The batch of step '
      f'{step} is {found.batches.where(step - 1)}. The last checkpoint is '
      'good; look at those rows, or lower optimizer.learning_rate.'
    )


def make_saver(config, workdir: pathlib.Path) -> checkpoint.Checkpointer:
  c = config.checkpoint
  return checkpoint.Checkpointer(
    workdir / 'checkpoints',
    keep=c.keep,
    keep_best=max(c.keep_best, int(config.monitor.stop)),
    best_metric=best_metric(config),
  )


def best_metric(config) -> str:
  """By which metric the best checkpoints are kept."""
  if config.monitor.stop:
    return config.monitor.judge
  return config.checkpoint.best_metric


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
