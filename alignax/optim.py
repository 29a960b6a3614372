"""Optimisers and schedules: optax, by name, with the usual choices made."""

import re

import jax
import jax.numpy as jnp
import optax
from optax import contrib

# What decays: matrices. Scales and biases do not; the leading layer axis makes
# the number of dimensions no guide, the name of a parameter does.
DECAYED = re.compile(r'(kernel|embedding|lora_[ab])$')


def make_schedule(
  *,
  learning_rate: float,
  total_steps: int,
  warmup_steps: int = 0,
  schedule: str = 'cosine',
  final_fraction: float = 0.0,
  decay_steps: int = 0,
) -> optax.Schedule:
  """Learning rate by step, after a linear warm-up from zero.

  Args:
    learning_rate: the peak.
    total_steps: when the decay ends.
    warmup_steps: length of the warm-up.
    schedule: 'constant', 'linear', 'cosine', 'rsqrt', or 'wsd' (constant, then
      linear over the last `decay_steps`).
    final_fraction: of the peak, where the decay ends.
    decay_steps: for 'wsd' only; a tenth of all steps if 0.
  """
  peak, end = learning_rate, learning_rate * final_fraction
  rest = max(total_steps - warmup_steps, 1)
  decay = min(decay_steps or max(total_steps // 10, 1), rest)
  after = {
    'constant': lambda: optax.constant_schedule(peak),
    'linear': lambda: optax.linear_schedule(peak, end, rest),
    'cosine': lambda: optax.cosine_decay_schedule(peak, rest, final_fraction),
    'rsqrt': lambda: _rsqrt(peak, max(warmup_steps, 1)),
    'wsd': lambda: optax.join_schedules(
      [
        optax.constant_schedule(peak),
        optax.linear_schedule(peak, end, decay),
      ],
      [rest - decay],
    ),
  }
  if schedule not in after:
    raise ValueError(
      f'Unknown schedule {schedule!r}; there are {sorted(after)}.'
    )
  if not warmup_steps:
    return after[schedule]()
  # The first update is already a step of the warm-up, not a step of zero.
  warmup = lambda step: peak * (step + 1) / (warmup_steps + 1)
  return optax.join_schedules([warmup, after[schedule]()], [warmup_steps])


def make_optimizer(
  *,
  total_steps: int,
  name: str = 'adamw',
  learning_rate: float = 1e-5,
  warmup_steps: int = 0,
  schedule: str = 'cosine',
  final_fraction: float = 0.0,
  decay_steps: int = 0,
  weight_decay: float = 0.0,
  clip_norm: float = 1.0,
  b1: float = 0.9,
  b2: float = 0.95,
  eps: float = 1e-8,
) -> optax.GradientTransformation:
  """Makes an optimiser: clip the global norm, then `name`.

  Args:
    total_steps: number of updates over which the schedule runs.
    name: 'adamw', 'adafactor', 'lion', 'muon' or 'sgd'.
    clip_norm: largest global gradient norm; 0 clips nothing.
    weight_decay: decoupled, on matrices only.
    b1, b2, eps: of the moments, where the optimiser has them.
    learning_rate, warmup_steps, schedule, final_fraction, decay_steps: see
      `make_schedule`.
  """
  rate = make_schedule(
    learning_rate=learning_rate,
    total_steps=total_steps,
    warmup_steps=warmup_steps,
    schedule=schedule,
    final_fraction=final_fraction,
    decay_steps=decay_steps,
  )
  decay = dict(weight_decay=weight_decay, mask=decay_mask)
  make = {
    'adamw': lambda: optax.adamw(rate, b1, b2, eps, **decay),
    'adafactor': lambda: optax.adafactor(
      rate,
      multiply_by_parameter_scale=False,
      weight_decay_rate=weight_decay or None,
      weight_decay_mask=decay_mask,
    ),
    'lion': lambda: optax.lion(rate, b1, b2, **decay),
    'muon': lambda: _muon(rate, b1, b2, eps, weight_decay),
    'sgd': lambda: optax.chain(
      optax.add_decayed_weights(**decay), optax.sgd(rate, b1)
    ),
  }
  if name not in make:
    raise ValueError(f'Unknown optimizer {name!r}; there are {sorted(make)}.')
  if not clip_norm:
    return make[name]()
  return optax.chain(optax.clip_by_global_norm(clip_norm), make[name]())


def decay_mask(params):
  """True for every parameter that weight decay applies to."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: bool(DECAYED.search(_name(path))), params
  )


def _muon(rate, b1, b2, eps, weight_decay):
  """Muon on the matrices of layers, Adam on the rest (embeddings, scales)."""

  def dimensions(params):
    return jax.tree_util.tree_map_with_path(_muon_dimensions, params)

  def labels(params):
    return jax.tree_util.tree_map_with_path(
      lambda *leaf: 'muon' if _muon_dimensions(*leaf) else 'adam', params
    )

  muon = contrib.muon(
    rate,
    beta=b2,
    weight_decay=weight_decay,
    weight_decay_mask=decay_mask,
    # Updates of the size of Adam's, so that one learning rate serves both
    # (Liu et al., eq. 4, https://arxiv.org/abs/2502.16982).
    consistent_rms=0.2,
    muon_weight_dimension_numbers=dimensions,
  )
  # Apart from optax's own Adam in there, which lets norms and biases decay.
  adam = optax.adamw(
    rate, b1, b2, eps, weight_decay=weight_decay, mask=decay_mask
  )
  return optax.partition({'muon': muon, 'adam': adam}, labels)


def _muon_dimensions(path, leaf):
  """Which axes of a stacked kernel [L, ...] Muon takes as one matrix's.

  The two factors of an adapter are matrices of their own.
  """
  name = _name(path)
  if not re.search(r'layers/.*(kernel|lora_[ab])$', name):
    return None
  if re.search('out/(kernel|lora_a)$', name):  # [L, H, head_dim, ...]
    return contrib.MuonDimensionNumbers((1, 2), (3,))
  outputs = tuple(range(2, leaf.ndim))  # [L, D, ...]
  return contrib.MuonDimensionNumbers((1,), outputs)


def _rsqrt(peak: float, offset: int) -> optax.Schedule:
  # Before the warm-up ends, `join_schedules` asks for steps below zero.
  return lambda step: peak * (offset / jnp.maximum(step + offset, 1)) ** 0.5


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')
