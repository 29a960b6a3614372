"""The probes of a run, as `config.evals.probes` asks for them.

What they measure is in `evals/`; `probe_parts` gives them a run's models, rows
and texts.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from tqdm import tqdm

from alignax import probe_parts

# (step, params, frozen) -> numbers
Probe = Callable[..., dict[str, float]]


def check(config, algorithm):
  """Raises for probes that cannot be made, before anything is loaded."""
  p, main = config.evals.probes, algorithm.TRAINED[0]
  if not p.every:
    return
  for key in ('text', 'sycophancy'):
    if p[key] and main != 'policy':
      raise ValueError(
        f'evals.probes.{key} is {p[key]!r}, which is asked of a policy, and '
        f'{config.algorithm} trains the role {main!r}: leave it '
        f"{'empty' if key == 'text' else '0'}; drift is measured without."
      )
  held_out = config.data.heldout or config.data.heldout_path
  if main == 'policy' and p.prompts and not held_out:
    raise ValueError(
      f'evals.probes.prompts is {p.prompts}, and no rows are held out to ask: '
      'set data.heldout or data.heldout_path, or evals.probes.prompts=0.'
    )


def make_probes(
  config, roles, found, tokenizer, mesh, scorer, workdir
) -> Probe | None:
  """Makes `probe(step, params, frozen) -> numbers`; None if none are due.

  Called before the first step: what the trained role starts from is copied, and
  stays on the device.

  Args:
    config: of the run.
    roles: from `role_params.load_roles`; its trained parameters still exist.
    found: from `reading.load_data`.
    tokenizer: of the run.
    mesh: of the run.
    scorer: from `scoring.load`.
    workdir: of the run, for samples.
  """
  if not config.evals.probes.every:
    return None
  main = next(iter(roles.trained))
  initial = jax.tree.map(jnp.copy, roles.trained[main])
  parts = [probe_parts.make_drift(roles, main, initial)]
  if main == 'policy':
    trees = probe_parts.Trees(roles, initial)
    args = (config, trees, roles, tokenizer)
    if config.evals.probes.prompts:
      parts.append(
        probe_parts.make_responses(*args, found.heldout, scorer, workdir)
      )
    if config.evals.probes.sycophancy:
      parts.append(probe_parts.make_sycophancy(*args))
    if config.evals.probes.text:
      parts.append(probe_parts.make_text(*args, mesh))
  elif config.evals.probes.prompts:  # It is so unless one says otherwise.
    tqdm.write(f'evals.probes: of the role {main!r}, drift alone is measured.')

  def probe(step, params, frozen):
    numbers = {}
    for part in parts:
      numbers |= part(step, params, frozen)
    return {f'probes/{name}': value for name, value in numbers.items()}

  return probe


def with_probes(config, evaluate, probe: Probe | None):
  """`evaluate(step, params, frozen)`, each part at the steps that it is due."""
  if probe is None:
    return evaluate
  due = lambda every, step: (
    step in (0, config.total_steps) or (every > 0 and step % every == 0)
  )

  def both(step, params, frozen):
    numbers = {}
    if due(config.evals.every, step):
      numbers |= evaluate(step, params, frozen)
    if due(config.evals.probes.every, step):
      numbers |= probe(step, params, frozen)
    return numbers

  return both
