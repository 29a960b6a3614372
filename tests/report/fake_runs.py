"""Runs as training leaves them, without any training."""

import json
import math
import pathlib
import random

PROMPTS = ('copy : red box', 'sort : 3 1 2', 'write <b>bold</b> & more')


def write_run(
  path: pathlib.Path,
  *,
  algorithm: str = 'dpo',
  seed: int = 0,
  total: int = 40,
  until: int | None = None,
  gain: float = 0.3,
  kl: bool = True,
  beta: float = 0.1,
):
  """A run whose score rises by `gain`; `until` is where it died."""
  path.mkdir(parents=True)
  config = dict(
    algorithm=f'alignax.algorithms.{algorithm}',
    algorithm_kw=dict(beta=beta),
    seed=seed,
    total_steps=total,
    init_from=f'{path}/stages/sft-1234',
  )
  (path / 'config.json').write_text(json.dumps(config))
  (path / 'versions.json').write_text('{}')
  rng = random.Random(f'{algorithm} {seed}')
  lines, samples = [], []
  for step in range(1, (total if until is None else until) + 1):
    rise = gain * (1 - math.exp(-step / 12))
    noise = rng.gauss(0, 0.02)
    line = dict(step=step, seconds=step * 0.4, tokens=step * 2048)
    line |= dict(loss=0.69 - rise + noise, grad_norm=1 + abs(noise))
    if kl:
      line |= {'samples/kl': step * 0.05, 'samples/total': 0.5 + rise + noise}
    lines.append(line)
    if step % 10 == 0:
      samples += [
        dict(step=step, prompt=p, response=f'{algorithm} {step}: {p[-9:]}',
             tokens=5, finished=True, scores=dict(total=0.5 + rise))
        for p in PROMPTS
      ]  # fmt: skip
  write = lambda name, rows: (path / name).write_text(
    ''.join(json.dumps(row) + '\n' for row in rows)
  )
  write('metrics.jsonl', lines)
  write('samples.jsonl', samples)


def write_sweep(path: pathlib.Path):
  """Two algorithms of three seeds, one without a KL, one that died."""
  for seed in range(3):
    write_run(path / f'dpo-s{seed}', seed=seed)
    write_run(path / f'ppo-s{seed}', algorithm='ppo', seed=seed, gain=0.4)
  write_run(path / 'sft', algorithm='sft', kl=False, gain=0.1)
  write_run(path / 'broken', beta=0.5, until=7)
