"""How far weights have moved from where they started, layer by layer."""

import jax
import jax.numpy as jnp

from alignax.types import Array, Params

# It starts at zero, so it has no relative change.
LEFT_OUT = ('value_head',)


def by_layer(params: Params, initial: Params) -> dict[str, Array]:
  """Relative change of weights, in float32, of parameters as `Model` has them.

    ‖W - W₀‖ / ‖W₀‖,  Frobenius, all weights of a part together

  Pure, and meant to be compiled whole: nothing but the results leaves the
  device.

  Args:
    params: `{'embed': ..., 'layers': ..., 'norm': ...}`, the leaves of 'layers'
      [L, ...].
    initial: the same, as they were.

  Returns:
    Scalars: 'layer_00', 'layer_01', ...; the other parts by their names; and
    'all', of all parts together.
  """
  changed, norms = [], []
  for name, tree in params.items():
    if name in LEFT_OUT:
      continue
    change, size = _squares(tree, initial[name], keep=int(name == 'layers'))
    changed.append((name, change))
    norms.append(size)
  found = {}
  for (name, change), size in zip(changed, norms):
    ratio = jnp.sqrt(change / size)
    if name == 'layers':
      found |= {f'layer_{i:02}': ratio[i] for i in range(len(ratio))}
    else:
      found[name] = ratio
  total = sum(jnp.sum(change) for _, change in changed)
  return found | {'all': jnp.sqrt(total / sum(map(jnp.sum, norms)))}


def _squares(tree: Params, initial: Params, keep: int) -> tuple[Array, Array]:
  """Sums of squares of change and start, over all but `keep` leading axes."""

  def squares(x, start):
    start = start.astype(jnp.float32)
    axes = tuple(range(keep, x.ndim))
    change = jnp.square(x.astype(jnp.float32) - start)
    return jnp.sum(change, axes), jnp.sum(jnp.square(start), axes)

  pairs = map(squares, *map(jax.tree.leaves, (tree, initial)))
  return tuple(sum(parts) for parts in zip(*pairs))
