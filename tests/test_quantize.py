"""Quantised kernels: how far off they are, and how many bytes they take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignax import quantize

SHAPES = {
  'exact blocks': ((2, 128, 24), 1),
  'heads': ((2, 64, 4, 8), 1),
  'several inputs': ((2, 4, 32, 300), 2),
  'a short block': ((3, 40, 7), 1),
}


def random_kernel(shape, seed=0):
  rng = np.random.default_rng(seed)
  # Outputs of very different size, as those of real kernels are.
  sizes = np.exp(rng.normal(size=shape[-1]))
  return (rng.normal(size=shape) * sizes).astype(np.float32)


def restore(stored, shape, dtype=jnp.float32):
  one = lambda x: quantize.dequantise(x, shape[1:], dtype)
  return np.asarray(jax.lax.map(one, stored))


@pytest.mark.parametrize('name', SHAPES)
def test_int8_is_off_by_half_a_level_at_most(name):
  shape, inputs = SHAPES[name]
  kernel = random_kernel(shape)
  stored = quantize.quantise(jnp.asarray(kernel), 'int8', inputs=inputs)
  axes = tuple(range(1, inputs + 1))
  bound = np.abs(kernel).max(axes, keepdims=True) / 254
  error = np.abs(restore(stored, shape) - kernel)
  assert np.all(error <= bound * 1.001)
  assert error.max() > 0.9 * bound.min()


@pytest.mark.parametrize('name', SHAPES)
def test_nf4_is_off_by_half_its_widest_gap_at_most(name):
  shape, inputs = SHAPES[name]
  kernel = random_kernel(shape)
  stored = quantize.quantise(jnp.asarray(kernel), 'nf4', inputs=inputs)
  size = int(np.prod(shape[1 : inputs + 1]))
  flat = np.zeros((shape[0], -(-size // 64) * 64, kernel[0].size // size))
  flat[:, :size] = kernel.reshape(shape[0], size, -1)
  blocks = flat.reshape(shape[0], -1, 64, flat.shape[-1])
  absmax = np.abs(blocks).max(2)
  scale = np.repeat(stored['nf4']['absmax_scale'], 256, -1)
  # Half of the gap from -1 to -0.696, and what an absmax lost in 8 bits.
  bound = 0.152 * absmax + 0.5 * scale[..., : absmax.shape[-1]]
  bound = np.repeat(bound, 64, 1)[:, :size].reshape(shape)
  error = np.abs(restore(stored, shape) - kernel)
  assert np.all(error <= bound * 1.001)


def test_nf4_of_its_own_values_is_exact_but_for_the_absmax():
  """Every code comes back, and so does every place in a block."""
  values = np.tile(quantize.NF4, 8)[None, :, None].repeat(3, -1)
  values = np.random.default_rng(0).permutation(values.astype(np.float32), 1)
  stored = quantize.quantise(jnp.asarray(values), 'nf4')
  # All absmax are 1: their mean is exact, and nothing is left of them.
  np.testing.assert_allclose(restore(stored, values.shape), values, atol=1e-7)


def test_nf4_of_normal_weights_is_as_far_off_as_the_paper_says():
  """Its levels are quantiles of a normal: a relative error below a tenth."""
  kernel = np.random.default_rng(0).normal(size=(1, 512, 256))
  kernel = kernel.astype(np.float32)
  off = {
    kind: np.sqrt(np.mean((restore(stored, kernel.shape) - kernel) ** 2))
    for kind in ('int8', 'nf4')
    for stored in [quantize.quantise(jnp.asarray(kernel), kind)]
  }
  assert 0.08 < off['nf4'] < 0.1
  assert 0.005 < off['int8'] < 0.01


@pytest.mark.parametrize('kind', quantize.KINDS)
def test_zeros_stay_zeros(kind):
  kernel = np.zeros((1, 64, 3), np.float32)
  kernel[0, 0, 1] = 2.0
  found = restore(quantize.quantise(jnp.asarray(kernel), kind), kernel.shape)
  assert np.all(np.isfinite(found))
  np.testing.assert_array_equal(found[0, 1:], 0)
  assert np.abs(found - kernel).max() < 0.02


@pytest.mark.parametrize(
  'kind, bits', [('int8', 8 + 32 / 512), ('nf4', 4 + 8 / 64 + 32 / 64 / 256)]
)
def test_bits_a_weight(kind, bits):
  """4.127 bits, as in section 3 of the QLoRA paper, and 32 a layer more."""
  shape = (2, 512, 1024)
  stored = quantize.quantise(jnp.zeros(shape), kind)
  size = sum(x.nbytes for x in jax.tree.leaves(stored))
  extra = 4 * shape[0] if kind == 'nf4' else 0
  assert size - extra == np.prod(shape) * bits / 8


def test_one_layer_at_a_time():
  """Quantising takes no second copy of all layers."""
  shape = (48, 256, 256)
  make = jax.jit(lambda x: quantize.quantise(x, 'nf4'))
  kernel = jax.ShapeDtypeStruct(shape, jnp.float32)
  memory = make.lower(kernel).compile().memory_analysis()
  assert memory.temp_size_in_bytes < np.prod(shape)


def test_bfloat16_is_kept_bit_by_bit():
  kernel = jnp.asarray(random_kernel((2, 16, 3, 4))).astype(jnp.bfloat16)
  stored = quantize.quantise(kernel, 'bfloat16')
  assert stored['bfloat16']['codes'].dtype == jnp.uint16
  found = restore(stored, kernel.shape, jnp.bfloat16)
  np.testing.assert_array_equal(found, np.asarray(kernel))


def test_an_unknown_kind_is_named():
  with pytest.raises(
    ValueError, match="'nf5'; it is one of bfloat16, int8, nf4"
  ):
    quantize.quantise(jnp.zeros((1, 64, 1)), 'nf5')
