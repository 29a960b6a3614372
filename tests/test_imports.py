"""Imports point down, and `import alignax` is light."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent / 'alignax'
FILES = sorted(ROOT.rglob('*.py'))

# A name stands for its module, or its package with everything in it.
LAYERS = {
  0: (
    'types', 'numerics', 'logps', 'fused_head', 'fused_divergence', 'weights',
    'advantages', 'losses',
  ),
  1: (
    'train', 'inner_steps', 'optim', 'sharding', 'checkpoint', 'metrics',
    'sampling', 'models', 'data', 'rewards', 'rollouts', 'responses', 'lora',
    'quantize',
  ),
  2: ('algorithms', 'evals'),
  3: (
    'checks', 'check_values', 'check_paths', 'assemble', 'describe', 'heldout',
    'reference', 'run', 'report', 'lora_roles', 'reward_checks', 'scoring',
    'sweeps', 'cli', 'probing', 'probe_parts', 'monitoring', 'complete',
    'role_params',
    'reading', 'stages', 'stopping', 'preflight', 'alone',
  ),
}  # fmt: skip
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
# What layers may import besides the standard library and each other.
LIBRARIES = {
  0: {'jax', 'chex', 'numpy'},
  # Linen stays inside models; Orbax and optax in the files made for them.
  'flax': {'models', 'train', 'sampling'},
  'orbax': {'checkpoint'},
  'ml_collections': {'cli'},
  'absl': {'cli'},
}
# Of one algorithm or evaluation, nothing is known to another.
APART = {'algorithms'}
# Imports within layer 1 that the design has: a model is stored by checkpoints,
# a checkpoint holds a train state.
SIDEWAYS = {
  ('models', 'checkpoint'),
  ('checkpoint', 'train'),
  ('inner_steps', 'train'),
  ('rollouts', 'models'),
  ('rollouts', 'rewards'),
  ('rollouts', 'sampling'),
  ('rollouts', 'sharding'),
  ('rollouts', 'train'),
  ('rewards', 'data'),
  ('rewards', 'models'),
  ('rewards', 'train'),
  ('rewards', 'sharding'),
  ('rewards', 'sampling'),
  ('sampling', 'models'),
  ('sampling', 'data'),
  ('models', 'sharding'),
  ('models', 'data'),
  ('models', 'lora'),
  ('models', 'quantize'),
  ('lora', 'quantize'),
}


def place(path: pathlib.Path) -> tuple[str, ...]:
  """The parts of a file's module name below `alignax`."""
  parts = path.relative_to(ROOT).with_suffix('').parts
  return parts[:-1] if parts[-1] == '__init__' else parts


def imports(path: pathlib.Path) -> set[tuple[str, ...]]:
  """Everything that a file imports, inside of functions too."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {tuple(name.name.split('.')) for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path} has a relative import'
      base = tuple(node.module.split('.'))
      inner = {(*base, name.name) for name in node.names}
      found |= inner if base[0] == 'alignax' else {base}
  return found


def own(path):
  """Modules of alignax that a file imports, as parts below `alignax`."""
  found = {m[1:] for m in imports(path) if m[0] == 'alignax'}
  # `from alignax.x import name` and `from alignax import x` alike.
  return {m for m in found if m}


@pytest.mark.parametrize('path', FILES, ids=lambda p: '.'.join(place(p)))
def test_imports_point_down(path):
  here = place(path)
  if not here:  # alignax/__init__.py: layer 0 only.
    assert {LAYER[m[0]] for m in own(path)} == {0}
    return
  assert here[0] in LAYER, f'{here[0]} has no layer: add it to LAYERS'
  layer = LAYER[here[0]]
  for module in own(path):
    if module[0] == here[0]:
      continue
    assert module[0] in LAYER, f'{path} imports {module}, of no layer'
    below = LAYER[module[0]] < layer
    sideways = (here[0], module[0]) in SIDEWAYS or layer in (0, 3)
    beside = LAYER[module[0]] == layer and sideways
    assert below or beside, (
      f'{"/".join(here)} (layer {layer}) imports {".".join(module)} '
      f'(layer {LAYER[module[0]]})'
    )


@pytest.mark.parametrize('name', sorted(APART))
def test_algorithms_do_not_know_each_other(name):
  for path in (ROOT / name).glob('*.py'):
    inside = [m for m in own(path) if m[0] == name]
    assert not inside, f'{path} imports {inside}'


@pytest.mark.parametrize('path', FILES, ids=lambda p: '.'.join(place(p)))
def test_libraries_stay_where_they_belong(path):
  here = place(path)
  tops = {m[0] for m in imports(path)} - {'alignax', '__future__'}
  assert not tops & {'torch', 'tensorflow', 'pickle'}, f'{path} imports {tops}'
  others = tops - set(sys.stdlib_module_names)
  if not here or LAYER[here[0]] == 0:
    assert others <= LIBRARIES[0], f'{path} imports {others - LIBRARIES[0]}'
    return
  for library in ('flax', 'orbax', 'ml_collections', 'absl'):
    if library in others:
      assert here[0] in LIBRARIES[library], f'{path} imports {library}'


def test_layer_zero_has_no_cycle():
  graph = {
    place(p)[0]: set() for p in FILES if place(p) and LAYER[place(p)[0]] == 0
  }
  for path in FILES:
    if place(path) and LAYER[place(path)[0]] == 0:
      others = {m[0] for m in own(path)} & graph.keys()
      graph[place(path)[0]] |= others - {place(path)[0]}
  while graph:
    free = [name for name, needs in graph.items() if not needs & graph.keys()]
    assert free, f'these import each other: {graph}'
    for name in free:
      del graph[name]


def test_importing_alignax_is_light():
  heavy = (
    'flax', 'orbax', 'datasets', 'transformers', 'ml_collections', 'optax',
    'tokenizers', 'grain', 'torch',
  )  # fmt: skip
  code = (
    'import sys, alignax\n'
    f'print(sorted(set({heavy!r}) & set(sys.modules)))\n'
    'print(callable(alignax.dpo_loss))'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT.parent,
  )
  assert result.stdout.split('\n')[:2] == ['[]', 'True']
