"""`alignax export`: write a model or run as a Hugging Face directory.

  alignax export --from=DIR|WORKDIR --to=HF_DIR [--role=policy] [--merge]

HF_DIR has config.json, safetensors and the tokenizer, as transformers reads
them. A reward model becomes a sequence classifier of one label. We score at the
end of a response, transformers at the last token: give it texts without what a
template writes after that end, as the newline of ChatML; and add
`value_head_bias` of config.json, for which it has no place.

Of a run with lora.rank set, the adapters are written as PEFT reads them; with
--merge they are added to their base, which makes a model like any other.
"""

import argparse
import pathlib

from alignax.cli import import_model


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
    prog='alignax export',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--from', dest='source', required=True, help='model or run to export')
  add('--to', required=True, help='directory; a model in it is replaced')
  add('--role', help="of a run's roles; default: its policy")
  add('--dtype', help="of the parameters, as 'bfloat16'; default: as they are")
  add('--merge', action='store_true', help='add adapters to their base')
  add('--base', help='of adapters, if it is not where they say')
  args = parser.parse_args(argv)

  from alignax import models

  adapted = models.is_adapter(args.source)
  if args.merge and not adapted:
    raise ValueError(f'--merge: {args.source} holds a model, and no adapters.')
  if adapted and not args.merge:
    return export_adapters(args)
  model, params = models.load(
    args.source, param_dtype=args.dtype, role=args.role, base=args.base
  )
  params = without_values(args, params)
  tokenizer = models.tokenizer_source(args.source, base=args.base)
  models.export(args.to, model, params, tokenizer=tokenizer)
  print(f'{import_model.describe(model, params)}: {args.to}')
  return 0


def export_adapters(args) -> int:
  """Writes a directory of PEFT."""
  from alignax import models
  from alignax.models import io

  if args.dtype:
    raise ValueError('--dtype: adapters are kept in float32, unless --merge.')
  model, origin, tree = models.load_adapters(
    args.source, role=args.role, base=args.base
  )
  tree = without_values(args, tree)
  tokenizer = models.tokenizer_source(args.source, base=args.base)
  models.save_adapters(
    args.to, model, origin, tree, tokenizer, peft_layout=True
  )
  print(f'{import_model.describe_adapters(origin, tree)}: {args.to}')
  base = pathlib.Path(origin.base)
  if base.exists() and io.kind_of(base) != 'hf':
    print(
      'PEFT loads them onto a Hugging Face model: write one with alignax '
      f'export --from={base}, and name it in adapter_config.json.'
    )
  return 0


def without_values(args, params):
  """A policy that its values share a body with, as people want it: to write."""
  if role_of(args) != 'policy':
    return params
  return {k: v for k, v in params.items() if k != 'value_head'}


def role_of(args) -> str | None:
  """Which role is exported; None where the source is no run."""
  from alignax import checkpoint
  from alignax.models import io

  source = io.locate(args.source)
  if args.role or io.kind_of(source) != 'run':
    return args.role
  stored = checkpoint.roles(checkpoint.checkpoints_of(source))
  return stored[0] if len(stored) == 1 else 'policy'
