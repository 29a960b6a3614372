"""Names for the pytrees that flow through the library."""

from collections.abc import Mapping
from typing import Any

import jax

Array = jax.Array
Params = Any  # A pytree of arrays, as `model.init` makes it.
Batch = Mapping[str, Array]  # See `alignax.data.examples` for its keys.
Metrics = dict[str, Array]
