"""Names for the pytrees that flow through the library."""

from typing import Any, Mapping

import jax

Array = jax.Array
Params = Any  # A pytree of arrays, as `model.init` makes it.
Batch = Mapping[str, Array]  # See `alignax.data.examples` for its keys.
Metrics = dict[str, Array]
