"""Eight CPU devices for every test, set before jax is imported."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
flags = os.environ.get('XLA_FLAGS', '')
if 'host_platform_device_count' not in flags:
  os.environ['XLA_FLAGS'] = (
    f'{flags} --xla_force_host_platform_device_count=8'
  ).strip()
