"""All that can be found wrong with a config before anything is loaded."""

from typing import Any, NamedTuple

from jax.sharding import Mesh

from alignax import (
  assemble,
  check_paths,
  check_values,
  checks,
  monitoring,
  probing,
  reading,
  reward_checks,
  sharding,
  stages,
)
from alignax.evals import samples


class Checked(NamedTuple):
  """What a config describes, as far as no data and no model is needed."""

  algorithm: Any  # Its module.
  kw: dict  # Arguments of its `make_step`.
  tx: Any  # The optimiser.
  mesh: Mesh


def check(config) -> Checked:
  """Raises ValueError for what is wrong: before a stage takes its time."""
  checks.check_config(config)
  check_values.check(config)
  algorithm = assemble.find_algorithm(config.algorithm)
  kw = checks.algorithm_arguments(algorithm, config)
  check_values.check_arguments(algorithm, kw)
  tx = assemble.make_optimizer(config, algorithm, kw)
  mesh = sharding.make_mesh(**config.mesh)
  checks.check_model(config)
  reward_checks.check(config, algorithm)
  checks.check_kind(config, algorithm)
  checks.check_batch(config, algorithm, kw, mesh)
  reading.batch_kw(algorithm, kw, config.data)
  checks.check_lora(config, algorithm)
  monitoring.check(config)
  probing.check(config, algorithm)
  samples.check(config)
  check_paths.check(config)
  return Checked(algorithm, kw, tx, mesh)


def check_stages(config, load_config):
  """The same for all configs that it starts from, before one of them is run."""
  for key, source in stages.sources(config).items():
    if stages.is_config(source):
      try:
        stage = load_config(source)
        check(stage)
        check_stages(stage, load_config)
      except (ValueError, OSError) as error:
        raise ValueError(f'{source}, which {key} names: {error}') from error
