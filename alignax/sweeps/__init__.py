"""Sweeps: many runs that differ only where their configs do.

A sweep file has `get_sweep()`, which returns a list of runs, each a dict:

  config     'configs/dpo.py:size=tiny', as for `alignax train`
  overrides  values by key: {'algorithm_kw.beta': 0.1, 'seed': 1}
  name       what to call it; made from the config and its overrides if absent
  after      runs that it starts from, by the key that is to hold their
             directory: {'init_from': sft, 'role_from.reward': 'reward'}; each
             is a run of the sweep by its name, or the dict itself. A single
             one stands for {'init_from': it}.

The functions here make such dicts, and lists of them; they are plain data, and
a list comprehension serves as well:

  from alignax import sweeps

  def get_sweep():
    sft = sweeps.run('configs/sft.py:size=tiny')
    dpo = sweeps.run('configs/dpo.py:size=tiny', after=sft)
    runs = sweeps.grid(dpo, {'algorithm_kw.beta': [0.03, 0.1, 0.3]})
    return sweeps.seeds(runs, 5)

A run that others start from is trained once, whoever names it; so is a config
that `init_from` or `role_from` names.
"""

from alignax.sweeps.spec import grid, run, seeds, zipped

__all__ = ['grid', 'run', 'seeds', 'zipped']
