"""Do more kinds of instructions make a model better at kinds it never saw?

  alignax sweep --sweep=experiments/task_diversity/sweep.py \
      --workdir=runs/experiments --jobs=2

SFT on 1,000 demonstrations of 2, 4, 8 or 15 task families, in one wording each
or in four, for the same number of steps; asked for families that none of them
saw. All families are in the raw text that the model was pretrained on, as facts
and as questions in some layouts: what is to be learned here is to answer.
"""

from alignax import sweeps
from alignax.data import synthetic
from experiments import common

SEEDS = 3
UNSEEN = ('reverse', 'last', 'subtract', 'smallest')
SEEN = tuple(task for task in synthetic.TASKS if task not in UNSEEN)
COUNTS = (2, 4, 8, 15)
WORDINGS = {'one wording': '0', 'four wordings': 'train'}
ASKED = {
  **common.QUIET,
  'evals.samples': 256,
  'evals.sampling.temperature': 1.0,
}


def get_sweep():
  runs = []
  for count in COUNTS:
    for name, wordings in WORDINGS.items():
      # Two and four are spread over the list, which has like families side by
      # side; eight are its first.
      tasks = SEEN[:: len(SEEN) // count][:count]
      seen = {'tasks': ','.join(tasks), 'phrasings': wordings}
      asked = {'tasks': ','.join(UNSEEN), 'phrasings': 'heldout'}
      overrides = {
        **ASKED,
        'data.path': common.world('demonstrations', 1000, **seen),
        'data.heldout_path': common.world(
          'demonstrations', 256, seed=1, split='heldout', **asked
        ),
      }
      runs.append(
        sweeps.run(
          common.STAGE.format('sft'),
          overrides,
          name=f'{count} families, {name}',
          after=common.pretrained(),
        )
      )
  return sweeps.seeds(runs, SEEDS)
