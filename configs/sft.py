r"""SFT: instruction tuning on demonstrations.

  alignax train --config=configs/sft.py:size=tiny --workdir=runs/sft

19 s on two cores (AMD EPYC); held-out loss 5.37 -> 0.83, gold score of 32
samples 0.00 -> 0.33.

With `world=tools` the tiny one learns to call tools. Tool calls of your own
rows are learned as all that the assistant writes; most templates write them,
and `--config.data.template=chatml` does for any tokenizer with its tokens.
"""

from configs import common


def get_config(arg=None):
  config, args = common.base(
    arg, data='', init_from='', world='demonstrations'
  )
  config.algorithm = 'alignax.algorithms.sft'
  config.algorithm_kw = dict(
    neftune=0.0,
    label_smoothing=0.0,
    z_loss=0.0,
    average='token',
    microbatches=1,
  )
  config.data.packing = True
  config.optimizer.update(learning_rate=2e-5, warmup_steps=10)
  if args.size == 'tiny':
    common.tiny(config, args.world, 1000)
    if args.world == 'tools':
      config.evals.scorer = 'alignax.data.synthetic.tool_score'
    config.total_steps = 60
    config.optimizer.update(name='muon', learning_rate=0.02)
  elif args.size == 'smollm2':
    common.smollm2(config)
    config.total_steps = 60
    config.data.heldout = 64
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  return config
