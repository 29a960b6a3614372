"""What all configs share: their keys, and what they are unless one says so.

A config is plain data. Its keys become keyword arguments of the functions named
here; a key that those do not have is an error before anything compiles.
"""

import ml_collections

from alignax.losses import lookup

SIZES = ('tiny', 'smollm2', 'custom')


def base(arg: str | None = None, **spec) -> tuple:
  """A config with every key, and the values of its argument string.

  Args:
    arg: 'size=tiny,beta=0.2', what follows the colon of `--config`.
    **spec: names that it may have, with defaults, whose types are taken on.

  Returns:
    The config, and the arguments by name.
  """
  args = parse_arg(arg, size='tiny', **spec)
  check_choice('size', args.size, SIZES)
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_steps = 100
  config.algorithm = ''
  config.algorithm_kw = {}
  # A directory, a GGUF file, a hub name, or a config to run first.
  config.init_from = ''
  # Of online algorithms: name -> kind, weight, ...; see docs/rewards.md.
  # Without any, they ask the role 'reward'.
  config.rewards = {}
  # Where single roles start from, if elsewhere.
  config.role_from = dict(ref='', value='', reward='', teacher='')
  config.tokenizer = ''  # A directory or hub name; that of init_from if ''.
  # Of the computation; and, for a fresh model, `alignax.models.Config`.
  config.model = dict(dtype='float32', remat='attention')
  # Besides these, `mixture` and `columns` where they are set; see docs/data.md.
  config.data = dict(
    path='',
    format='',
    split='',
    kind='',  # What the algorithm reads, unless it reads several kinds.
    length=512,
    batch_size=8,
    packing=False,
    template='',  # The tokenizer's own; or 'chatml', 'alpaca'.
    turns='all',
    on_bad_row='skip',
    drop_duplicates=False,
    heldout=0,  # Rows at the end that are never trained on.
    heldout_path='',
    ptx_path='',
    ptx_length=0,
    ptx_batch_size=0,
    precompute_ref=False,
  )
  config.optimizer = dict(
    name='adamw',
    learning_rate=1e-5,
    warmup_steps=0,
    schedule='cosine',
    final_fraction=0.1,
    decay_steps=0,
    weight_decay=0.0,
    clip_norm=1.0,
    b1=0.9,
    b2=0.95,
    eps=1e-8,
  )
  # Adapters on a frozen base that all roles share; rank 0 trains everything.
  config.lora = dict(
    rank=0,
    alpha=16.0,
    targets=r'^layers/(attn|mlp)/\w+/kernel$',  # All projections.
    dora=False,
    rslora=False,
    base='float32',  # How the base is kept; or 'bfloat16', 'int8', 'nf4'.
  )
  config.ema_decay = 0.0
  config.max_skipped = 10  # Updates that are not finite, in a row, before stop.
  config.mesh = dict(data=-1, fsdp=1, tensor=1)
  config.checkpoint = dict(every=0, keep=2, keep_best=0, best_metric='')
  config.log = dict(every=1, tensorboard=True)
  config.evals = dict(
    every=0,  # And at the end, always.
    samples=8,
    sampling=dict(max_new_tokens=64, temperature=0.0, top_p=1.0),
    scorer='',
    probes=dict(  # Of the policy; see docs/probes.md.
      every=0,  # Steps between two, and at both ends; 0: none.
      prompts=64,
      per_prompt=2,
      text='',  # Held-out pretraining text.
      text_length=0,  # That of the data if 0.
      sycophancy=0,  # Instructions with a wrong opinion, of the small world.
    ),
  )
  config.monitor = dict(  # Of reward hacking: names of evaluated metrics.
    proxy='',
    judge='',
    window=8,
    alpha=0.01,
    patience=2,
    stop=False,
  )
  return config, args


def parse_arg(arg: str | None, **spec):
  """'beta=0.2,size=tiny' -> ConfigDict, typed as the defaults in `spec`."""
  args = ml_collections.ConfigDict(spec)
  for item in filter(None, (arg or '').split(',')):
    name, _, value = item.partition('=')
    if name not in args:
      hint = lookup.nearest(name, spec)
      raise ValueError(f'there is no argument {name!r}; {hint}.')
    args[name] = typed(name, value, type(spec[name]))
  return args


def typed(name: str, value: str, kind: type):
  """What an argument says, as the type that it has."""
  if kind is bool:
    value = value.lower()
    check_choice(name, value, ('true', 'false', '1', '0'))
    return value in ('true', '1')
  try:
    return kind(value)
  except ValueError:
    what = {int: 'a whole number', float: 'a number'}[kind]
    raise ValueError(f'{name}={value}: give {what}.') from None


def check_choice(name: str, value: str, known):
  """Raises if an argument is none of what it can be."""
  if value not in known:
    hint = lookup.nearest(value, known)
    raise ValueError(f'{name}={value} is unknown; {hint}.')


def loss_kw(name: str, like: str = '', **given) -> dict:
  """The hyper-parameters of a loss, so that each is a key.

  Args:
    name: of the loss.
    like: one of the losses that could stand in its place; '' is any.
    **given: values, where they are not the loss's own defaults.
  """
  takes = lookup.takes(lookup.find_loss(like, takes=())) if like else ()
  defaults = lookup.hyperparameters(lookup.find_loss(name, takes))
  return defaults | {k: v for k, v in given.items() if k in defaults}


def tiny(config, name: str, n: int, *, length: int = 64, heldout: int = 64):
  """The synthetic world and a fresh model of about a million parameters."""
  config.tokenizer = 'synthetic'
  config.model.update(
    width=128,
    depth=3,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
    mlp_width=384,
    tie_embeddings=False,
    max_length=length,
  )
  world = 'synthetic:{name}?n={n}&seed={seed}&split={split}'
  config.data.update(
    path=world.format(name=name, n=n, seed=0, split='train'),
    heldout_path=world.format(name=name, n=heldout, seed=1, split='heldout'),
    length=length,
    batch_size=16,  # Packed: some 55 conversations, or 45 pairs.
  )
  config.evals.samples = 32
  config.evals.sampling.max_new_tokens = 24
  config.evals.scorer = 'alignax.data.synthetic.gold_score'


def smollm2(config, *, length: int = 256, batch_size: int = 4):
  """SmolLM2-135M-Instruct, as `alignax import` stored it, on two CPU cores."""
  config.init_from = 'runs/smollm2'
  config.data.update(length=length, batch_size=batch_size)
  config.checkpoint.every = 10  # Minutes of work, on two cores.
  config.evals.update(samples=4)
  config.evals.sampling.max_new_tokens = 48


def offline(config, args, world: str, *, rows: int = 1000, rate: float = 1e-4):
  """Data and a start for an algorithm that learns from others' responses.

  `world` names a set of the synthetic world, `rows` of it are learned from, at
  the learning rate `rate` in the tiny size. `args` has data and init_from.
  """
  config.data.packing = True
  config.optimizer.update(learning_rate=1e-6, warmup_steps=10)
  if args.size == 'tiny':
    tiny(config, world, rows)
    config.init_from = 'configs/sft.py:size=tiny'
    config.total_steps = 60
    config.optimizer.learning_rate = rate
  elif args.size == 'smollm2':
    smollm2(config)
    config.init_from = 'runs/sft'
    config.total_steps = 40
    config.data.heldout = 100
    config.optimizer.learning_rate = 1e-5
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from


# Of algorithms that learn from their own samples.
SAMPLING = dict(
  max_new_tokens=64,
  temperature=1.0,
  top_k=0,
  top_p=1.0,
  stop_ids=(),  # Those of the tokenizer.
)


def online(config, args, *, prompts: int = 8, rate: float = 4e-4):
  """Prompts, a start and a reward model for an online algorithm.

  `prompts` go to a step of the tiny size, half as many on SmolLM2; `rate`
  is the learning rate of the tiny size. `args` has data, init_from and reward.
  """
  config.optimizer.update(
    learning_rate=1e-6, warmup_steps=5, schedule='constant'
  )
  config.data.batch_size = prompts
  if args.size == 'tiny':
    tiny(config, 'prompts', 2000)
    config.data.batch_size = prompts
    config.init_from = 'configs/sft.py:size=tiny'
    config.role_from.reward = 'configs/reward.py:size=tiny'
    config.total_steps = 16
    config.algorithm_kw.max_new_tokens = 24
    config.optimizer.learning_rate = rate
  elif args.size == 'smollm2':
    smollm2(config, length=96, batch_size=max(prompts // 2, 1))
    config.init_from = 'runs/sft'
    config.role_from.reward = 'runs/reward'
    config.total_steps = 25
    config.data.heldout = 100
    config.algorithm_kw.max_new_tokens = 48
    config.optimizer.learning_rate = 1e-5
    config.evals.samples = 32
    config.evals.sampling.temperature = 1.0
  config.data.path = args.data or config.data.path
  config.init_from = args.init_from or config.init_from
  config.role_from.reward = args.reward or config.role_from.reward
