"""`alignax import`: store a model of Hugging Face or GGUF in our format.

  alignax import --from=HF_DIR|FILE.gguf|HUB_NAME --to=DIR
  alignax import --from=PEFT_DIR --base=HF_DIR|DIR --to=DIR

DIR then has the parameters, the config and the tokenizer: what `init_from` of
a config and --model of `alignax generate` take. They take the original as
well; importing it once saves the conversion at every start. Of a directory of
PEFT the adapters are stored, to be trained on with lora.rank set, or merged by
`alignax export --merge`; without --base they say themselves where it is.
"""

import argparse


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
    prog='alignax import',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--from', dest='source', required=True, help='what to import')
  add('--to', required=True, help='directory; a model in it is replaced')
  add('--dtype', default='float32', help='of the parameters that are stored')
  add('--role', help="of a run's roles, where it is a run; default: its policy")
  add('--base', help='of adapters, if it is not where they say')
  args = parser.parse_args(argv)

  from alignax import models

  if models.is_adapter(args.source):
    return import_adapters(args)
  model, params = models.load(
    args.source, param_dtype=args.dtype, role=args.role
  )
  models.save(args.to, model, params, tokenizer=args.source)
  print(f'{describe(model, params)}: {args.to}')
  return 0


def import_adapters(args) -> int:
  """Stores adapters, which go on pointing to their base."""
  from alignax import models

  model, origin, tree = models.load_adapters(
    args.source, role=args.role, base=args.base
  )
  tokenizer = models.tokenizer_source(args.source, base=args.base)
  models.save_adapters(args.to, model, origin, tree, tokenizer)
  print(f'{describe_adapters(origin, tree)}: {args.to}')
  return 0


def describe_adapters(origin, tree) -> str:
  """'1.2M parameters, adapters of rank 8 on runs/smollm2'."""
  import jax

  size = sum(x.size for x in jax.tree.leaves(tree)) / 1e6
  rank = origin.settings.rank
  return f'{size:.1f}M parameters, adapters of rank {rank} on {origin.base}'


def describe(model, params) -> str:
  """'134.5M parameters, 30 layers, 49152 tokens'."""
  import jax

  size = sum(x.size for x in jax.tree.leaves(params)) / 1e6
  c = model.config
  return f'{size:.1f}M parameters, {c.depth} layers, {c.vocab_size} tokens'
