"""Algorithms, one file each.

Each names what it reads and trains, and makes its step:

  DATA = 'pairs'            the kind of its batches, see `alignax.data`
  TRAINED = ('policy',)     roles in `state.params`
  FROZEN = ('ref',)         roles in `frozen`, read only
  make_step(models, tx, *, ..., microbatches, ema_decay)
      -> step(state, frozen, batch, key) -> (state, metrics)

and, where a held-out set makes sense, what is measured on it:

  make_eval(models, *, ..., microbatches)
      -> evaluate(params, frozen, batch, key) -> metrics

Optional are OTHER_KINDS, what it reads where `config.data.kind` says so, and
these, all called with the arguments of `make_step`:

  check_kw(...)                        raises for values that cannot be
  roles(...) -> (trained, frozen)      where arguments decide what is needed
  init_extra(params=, ...)             what it adapts by itself: state.extra
  updates_per_step(...) -> int         optimiser steps, if not one
  learned_rows(batch_size, ...)        rows that a step learns from, if others
  batch_kw(...) -> {name: value}       what it asks of `alignax.data.Batches`
  reference_logps(ref, ...)            for `data.precompute_ref`

`models` maps roles to `alignax.models.Model`. Hyper-parameters are keyword
arguments; a config only names them. A module of your own, anywhere on the path,
is used by its dotted name: `config.algorithm = 'my_lab.my_algorithm'`.
"""
