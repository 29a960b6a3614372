"""What a run writes once, when it starts: its config, versions and data."""

import json
import pathlib

import jax

from alignax import checkpoint, metrics

# What may change when a run goes on: how long, where, and what it reports.
RESUMABLE = (
  'total_steps', 'checkpoint', 'log', 'evals', 'mesh', 'max_skipped', 'monitor',
)  # fmt: skip


def write_description(config, workdir: pathlib.Path):
  """Writes the resolved config, and what the run runs with."""
  if jax.process_index():
    return
  path = workdir / 'config.json'
  # What failed before it made anything, for a bad row say, was no run.
  old = path.read_text() if made_anything(workdir) else ''
  new = json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True)
  if old and old != new + '\n':
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


def made_anything(workdir: pathlib.Path) -> bool:
  """Whether there is what another config would have made otherwise."""
  if not (workdir / 'config.json').exists():
    return False
  if checkpoint.latest_step(workdir / 'checkpoints') is not None:
    return True
  files = (workdir / name for name in ('reference.npz', 'base'))
  return bool(metrics.read(workdir)) or any(file.exists() for file in files)


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
  """Prints what was found in the data, and keeps it with every row named."""
  if jax.process_index():
    return
  text = lambda **kw: '\n\n'.join(
    f'{name} data\n{report.table(**kw)}'
    for name, report in found.reports.items()
  )
  print(text(), flush=True)
  (workdir / 'data.txt').write_text(text(most=None) + '\n')
