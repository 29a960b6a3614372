"""Prefill and decoding, in one compiled program or in resumable blocks.

A `SampleState` holds all that sampling goes on from. `start` reads prompts
into it and `advance` adds tokens until every row is done; `sample` is the two
in one program, and gives rows that train as they are.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from alignax.sampling import draws
from alignax.sampling.settings import Sampling
from alignax.types import Array, Batch, Params


class SampleState(flax.struct.PyTreeNode):
  """Where sampling stands. All rows are at the same step.

  Attributes:
    cache: of the model, without the token in `last`.
    keys: one a row, [B].
    last: token of every row that the model reads next, [B].
    seen: tokens that stand in a row, prompt included, bool [B, V].
    tokens: the responses so far, 0 after their end, [B, N].
    logps: log-probs of `tokens` under the policy at the temperature, [B, N].
    sampler_logps: the same under the filtered distribution, [B, N].
    lengths: of the responses, stop token included, [B].
    done: rows that ended; those of empty prompts from the start, bool [B].
    step: number of tokens drawn, [].
  """

  cache: flax.struct.PyTreeNode
  keys: Array
  last: Array
  seen: Array
  tokens: Array
  logps: Array
  sampler_logps: Array
  lengths: Array
  done: Array
  step: Array


@functools.partial(
  jax.jit, static_argnames=('model', 'max_new_tokens', 'group', 'unroll')
)
def sample(
  model,
  params: Params,
  prompts: Batch,
  key: Array,
  sampling: Sampling,
  *,
  max_new_tokens: int,
  group: int = 1,
  unroll: bool = False,
) -> Batch:
  """Samples responses to every prompt; one compiled program.

  Compiled once for a model, B, P, `max_new_tokens` and `group`: the key and
  every number in `sampling` are arrays. It ends as soon as every row is done.

  Training recomputes `logps` by `model.logps(params, rows, temperature=
  sampling.logp_temperature)`: they are the policy's, of the temperature alone.
  `sampler_logps` are of the distribution that was drawn from, after top-k,
  top-p, min-p, penalties and forbidden stops (all zero if greedy).

  Args:
    model: has `init_cache`, `extend`, `for_decoding` and `decode`, and for
      groups `repeat_cache`, as `alignax.models.Model`.
    params: of the model.
    prompts: `inputs`, `segments` (1; 0 is padding) and `positions`, [B, P],
      padded on the left. A row of padding alone yields an empty response.
    key: one key; or one for every response, [B * G], to tie its randomness to
      something other than its place. It decides alone what a row draws.
    sampling: from `make_sampling`.
    max_new_tokens: N, size of the response buffer. `sampling.limit` may end
      responses earlier.
    group: G, responses to each prompt, which is read once; they stand next to
      each other, so results have B * G rows for the B prompts.
    unroll: compile the layers one by one, see `Model.for_decoding`.

  Returns:
    inputs, targets, segments, positions, mask, logps and sampler_logps
    [B, P + N]; `mask` marks targets in the response, the stop token included,
    and log-probs are 0 elsewhere. `lengths` [B] counts response tokens,
    `finished` [B] says which rows drew a stop token.
  """
  params, state = start(
    model,
    params,
    prompts,
    key,
    max_new_tokens=max_new_tokens,
    group=group,
    unroll=unroll,
  )
  state = advance(model, params, state, sampling, until=max_new_tokens)
  return as_rows(repeat_rows(prompts, group), state)


def start(
  model,
  params: Params,
  prompts: Batch,
  key: Array,
  *,
  max_new_tokens: int,
  group: int = 1,
  unroll: bool = False,
) -> tuple[Params, SampleState]:
  """Reads the prompts [B, P] into a cache with room for the responses.

  Returns the parameters as `advance` wants them, and the state of B * G rows.
  """
  _check_shapes(prompts, max_new_tokens, group)
  inputs, segments = prompts['inputs'], prompts['segments']
  batch, length = inputs.shape
  cache = model.init_cache(batch, length + max_new_tokens - 1)
  if length > 1:  # The last token is read by the first decoding step.
    before = (inputs, segments, prompts['positions'])
    _, cache = model.extend(params, cache, *(x[:, :-1] for x in before))
  if group > 1:
    cache = model.repeat_cache(cache, group)
    inputs, segments = repeat_rows((inputs, segments), group)
    batch *= group
  params, cache = model.for_decoding(params, cache, unroll=unroll)
  last = inputs[:, -1]
  vocab_size = jax.eval_shape(model.decode, params, cache, last)[0].shape[-1]
  # Padding is dropped: its token id may be one that means something.
  token = jnp.where(segments > 0, inputs, vocab_size)
  seen = jnp.zeros((batch, vocab_size), bool)
  return params, SampleState(
    cache=cache,
    keys=draws.row_keys(key, batch),
    last=last,
    seen=_mark(seen, token),
    tokens=jnp.zeros((batch, max_new_tokens), jnp.int32),
    logps=jnp.zeros((batch, max_new_tokens)),
    sampler_logps=jnp.zeros((batch, max_new_tokens)),
    lengths=jnp.zeros((batch,), jnp.int32),
    done=segments[:, -1] == 0,
    step=jnp.int32(0),
  )


def advance(
  model, params: Params, state: SampleState, sampling: Sampling, *, until: Array
) -> SampleState:
  """Draws tokens until `until` of them stand, or every row is done."""
  last_step = jnp.minimum(until, sampling.limit)
  last_step = jnp.minimum(last_step, state.tokens.shape[1])

  def unfinished(state):
    return (state.step < last_step) & ~jnp.all(state.done)

  def draw(state):
    logits, cache = model.decode(params, state.cache, state.last)
    drawn = draws.draw_tokens(
      state.keys, logits, state.seen, state.step, sampling
    )
    return _append(state.replace(cache=cache), *drawn, sampling.stop_ids)

  return jax.lax.while_loop(unfinished, draw, state)


def as_rows(prompts: Batch, state: SampleState) -> Batch:
  """Prompts [B, P] and responses [B, N] as rows [B, P + N] to train on."""
  num_prompt, num_new = prompts['inputs'].shape[1], state.tokens.shape[1]
  steps = jnp.arange(num_new)
  responded = steps < state.lengths[:, None]
  join = lambda x, y: jnp.concatenate([x, y.astype(x.dtype)], axis=1)
  # A response token is the target of the position before it.
  shifted = lambda x: jnp.pad(x, [(0, 0), (num_prompt - 1, 1)])
  inputs = join(prompts['inputs'], state.tokens)
  last = prompts['positions'][:, -1:]
  positions = jnp.where(responded, last + 1 + steps, 0)
  return {
    'inputs': inputs,
    'targets': jnp.pad(inputs[:, 1:], [(0, 0), (0, 1)]),
    'segments': join(prompts['segments'], responded),
    'positions': join(prompts['positions'], positions),
    'mask': shifted(responded),
    'logps': shifted(state.logps),
    'sampler_logps': shifted(state.sampler_logps),
    'lengths': state.lengths,
    'finished': state.done & (state.lengths > 0),
  }


def repeat_rows(tree, group: int):
  """Every row `group` times, next to each other. [B, ...] -> [B * G, ...]."""
  return jax.tree.map(lambda x: jnp.repeat(x, group, axis=0), tree)


@jax.jit
def num_tokens(rows: Batch) -> Array:
  """Tokens of prompts and responses, padding left out, []."""
  return jnp.sum(rows['segments'] > 0)


def _append(state, tokens, logps, sampler_logps, stop_ids) -> SampleState:
  """Writes one drawn token a row; nothing to rows that are done."""
  alive = ~state.done
  tokens = jnp.where(alive, tokens, 0)

  def write(buffer, column):
    column = jnp.where(alive, column, 0).astype(buffer.dtype)[:, None]
    return jax.lax.dynamic_update_slice(buffer, column, (0, state.step))

  stops = jnp.any(tokens[:, None] == stop_ids, axis=-1)
  return state.replace(
    last=tokens,
    seen=_mark(state.seen, tokens),
    tokens=write(state.tokens, tokens),
    logps=write(state.logps, logps),
    sampler_logps=write(state.sampler_logps, sampler_logps),
    lengths=state.lengths + alive,
    done=state.done | stops,
    step=state.step + 1,
  )


@jax.vmap  # Row by row: indices of rows would be gathered from all devices.
def _mark(seen: Array, tokens: Array) -> Array:
  """Sets seen [V] at tokens, those of padding (V) left out."""
  return seen.at[tokens].set(True, mode='drop')


def _check_shapes(prompts: Batch, max_new_tokens: int, group: int):
  names = ('inputs', 'segments', 'positions')
  missing = [name for name in names if name not in prompts]
  if missing:
    raise ValueError(
      f'prompts lack {missing}; give inputs, segments and positions [B, P].'
    )
  shapes = {name: prompts[name].shape for name in names}
  if len(set(shapes.values())) > 1 or len(shapes['inputs']) != 2:
    raise ValueError(f'prompts must all be [B, P]; found {shapes}.')
  if shapes['inputs'][1] == 0:
    raise ValueError('prompts have no tokens (P = 0); give at least one each.')
  for name, count in ('max_new_tokens', max_new_tokens), ('group', group):
    if count < 1:
      raise ValueError(f'{name} is {count}; give at least 1.')
