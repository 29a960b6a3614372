"""`import alignax` is for people with a training loop of their own."""

import subprocess
import sys

HEAVY = """
  flax orbax datasets transformers ml_collections optax grain torch matplotlib
  alignax.models alignax.data alignax.train alignax.algorithms
"""


def test_importing_alignax_pulls_in_jax_and_chex_only():
  code = (
    'import sys, alignax\n'
    f'found = set({HEAVY.split()}) & set(sys.modules)\n'
    'assert not found, found\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
