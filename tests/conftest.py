"""Eight CPU devices for every test, set before jax is imported."""

import os

import pytest

os.environ['JAX_PLATFORMS'] = 'cpu'
flags = os.environ.get('XLA_FLAGS', '')
if 'host_platform_device_count' not in flags:
  flags += ' --xla_force_host_platform_device_count=8'
if 'backend_optimization_level' not in flags:
  # Tests compile much and compute little: half of the time of a small model's
  # step goes to machine code that is then run a few times.
  flags += ' --xla_backend_optimization_level=0'
  flags += ' --xla_llvm_disable_expensive_passes=true'
os.environ['XLA_FLAGS'] = flags.strip()


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """A folder with a config of every algorithm, as small as they come."""
  import small_runs  # It imports jax.

  folder = tmp_path_factory.mktemp('home')
  small_runs.write_configs(folder)
  return folder
