"""What a run's reward model gives to what its policy writes, before and after.

  python -m experiments.smollm2.rewarded RUN [DRAWS]

Both policies, where the run started and where it ended, answer its held-out
prompts at temperature 1. The difference is paired by prompt: its interval is
over prompts.
"""

import json
import pathlib
import sys

import ml_collections
import numpy as np

from alignax import assemble, models, reading
from alignax.evals import samples
from alignax.evals.intervals import bootstrap, paired
from experiments.smollm2.followed import shown


def main(workdir: str, draws: str = '3'):
  text = (pathlib.Path(workdir) / 'config.json').read_text('utf-8')
  config = ml_collections.ConfigDict(json.loads(text))
  tokenizer = reading.tokenizer_of(workdir)
  algorithm, kw = assemble.find_algorithm(config.algorithm), config.algorithm_kw
  examples = reading.load_data(config, algorithm, kw, tokenizer).heldout
  judge, judge_params = models.load(config.role_from.reward)
  found = {}
  for name, where in (('before', config.init_from), ('after', workdir)):
    policy, params = models.load(where)
    found[name] = np.mean([
      [sample['reward'] for sample in samples.draw(
        {'policy': policy, 'reward': judge},
        {'policy': params},
        {'reward': judge_params},
        tokenizer,
        examples,
        number=len(examples),
        seed=seed,
        max_new_tokens=kw.max_new_tokens,
        temperature=1.0,
        stop_ids=reading.stop_ids(tokenizer),
      )[0]]
      for seed in range(int(draws))
    ], axis=0)  # fmt: skip
    print(f'{name:<8}{shown(bootstrap(found[name]))}', flush=True)
  print(f'gain    {shown(paired(found["after"], found["before"]))}')


if __name__ == '__main__':
  main(*sys.argv[1:])
