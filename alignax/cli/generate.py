r"""`alignax generate`: write responses to prompts.

  alignax generate --model=runs/dpo --prompt='Name three colours.'
  alignax generate --model=runs/dpo --prompts=FILE.jsonl --output=OUT.jsonl \
      --temperature=0.7 --top_p=0.9 --seed=1

--model takes whatever `alignax import` takes, what it wrote, and the directory
of a run. A prompt is put into the chat template of the tokenizer; where it has
none, or with --template=none, the model goes on from the text as it is. Rows
of --prompts have `messages` or `prompt`; the output has them all, in order,
with `response` added.
"""

import argparse
import json
import pathlib
import sys

NO_TEMPLATE = 'none'
NEW_TOKENS = 128  # By default, where they fit.


def main(argv: list[str]) -> int:
  args = parse(argv)
  # Only now: help and mistakes take no second.
  from alignax import models, reading

  rows = read_rows(args)
  model, params = models.load(args.model, dtype=args.dtype, role=args.role)
  tokenizer = reading.tokenizer_of(args.model)
  prompts = make_prompts(args, rows, tokenizer)
  if args.max_new_tokens is None:
    args.max_new_tokens = room(prompts, model.config.max_length)
  with open_output(args) as file:
    responses = draw(args, model, params, tokenizer, prompts)
    for row, response in zip(rows, responses):
      if file is not None:
        row = dict(row) | {'response': response.text}
        file.write(json.dumps(row, ensure_ascii=False) + '\n')
      else:
        print(response.text)
  if args.output:
    print(f'{len(rows)} rows: {args.output}', file=sys.stderr)
  return 0


def parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='alignax generate',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--model', required=True, help='directory, GGUF file or hub name')
  source = parser.add_mutually_exclusive_group(required=True)
  source.add_argument('--prompt', help='one prompt; its response is printed')
  source.add_argument('--prompts', help='file of rows: jsonl, json, parquet')
  add('--output', help='FILE.jsonl; without it, responses are printed')
  add('--max_new_tokens', type=int, help=f'default: {NEW_TOKENS}, or what fits '
      'after the longest prompt')  # fmt: skip
  add('--temperature', type=float, default=0.0, help='0, the default: greedy')
  add('--top_p', type=float, default=1.0)
  add('--top_k', type=int, default=0, help='0, the default, keeps all')
  add('--min_p', type=float, default=0.0)
  add('--repetition_penalty', type=float, default=1.0)
  add('--min_new_tokens', type=int, default=0)
  add('--seed', type=int, help='of the draws; a new one every time if not set')
  add(
    '--stop',
    action='append',
    default=[],
    metavar='TEXT',
    help='ends a response and is cut from it; may be given several times',
  )
  add('--batch_size', type=int, default=16, help='rows sampled together')
  add(
    '--template',
    default='',
    help="'chatml', 'alpaca', Jinja text, or 'none'; default: its own",
  )
  add('--role', help="of a run's roles; default: its policy")
  add('--dtype', help="of the computation: 'float32', 'bfloat16'")
  args = parser.parse_args(argv)
  draws = args.top_p < 1 or args.top_k or args.min_p
  if draws and args.temperature == 0:
    raise ValueError(
      '--top_p, --top_k and --min_p choose among draws, and at temperature 0 '
      'nothing is drawn; set --temperature, to 1.0 say.'
    )
  return args


def read_rows(args) -> list:
  """The rows to answer, as they are in their file."""
  if args.prompt is not None:
    return [{'prompt': args.prompt}]
  from alignax import data

  rows = data.load_rows(args.prompts, format='prompts')
  for row in rows:
    if isinstance(row, data.RowError):
      raise row
  return rows


def make_prompts(args, rows, tokenizer) -> list[list[int]]:
  """Token ids of every prompt.

  As in training, spellings of control tokens in a prompt stay plain text.
  """
  from alignax import data

  if as_text(args.template, tokenizer):
    return [tokenizer(text_of(row))['input_ids'] for row in rows]
  examples, _ = data.prepare(
    rows,
    tokenizer,
    kind='prompts',
    length=sys.maxsize,
    template=args.template,
    on_bad_row='raise',
  )
  return [example.tokens[0].tolist() for example in examples]


def room(prompts, max_length: int) -> int:
  """The default of --max_new_tokens; says so where it is less than usual."""
  longest = max(map(len, prompts), default=0)
  fit = min(NEW_TOKENS, max_length - longest)
  if 0 < fit < NEW_TOKENS:
    print(
      f'At most {fit} new tokens: the longest prompt has {longest}, and the '
      f'max_length of the model is {max_length}.',
      file=sys.stderr,
    )
  return max(fit, 1)  # Where nothing fits, `sampling.generate` names the row.


def as_text(template: str, tokenizer) -> bool:
  """Whether prompts are gone on from as they are."""
  return template == NO_TEMPLATE or not (template or tokenizer.chat_template)


def text_of(row) -> str:
  if not isinstance(row.get('prompt'), str):
    raise ValueError(
      f'A row has {sorted(row)}; without a chat template it needs a `prompt` '
      "that is text. Set --template, to 'alpaca' say, to use conversations."
    )
  return row['prompt']


def open_output(args):
  """The file to write, or what stands for none."""
  if not args.output:
    import contextlib

    return contextlib.nullcontext()
  path = pathlib.Path(args.output)
  path.parent.mkdir(parents=True, exist_ok=True)
  # Opened before the draws: a place that cannot be written costs no wait.
  return path.open('w', encoding='utf-8')


def draw(args, model, params, tokenizer, prompts):
  """A response to every prompt, with a progress bar."""
  from tqdm import tqdm

  from alignax import reading, sampling

  numbers = sampling.make_sampling(
    temperature=args.temperature,
    top_k=args.top_k,
    top_p=args.top_p,
    min_p=args.min_p,
    repetition_penalty=args.repetition_penalty,
    min_new_tokens=args.min_new_tokens,
    max_new_tokens=args.max_new_tokens,
    stop_ids=reading.stop_ids(tokenizer),
  )
  hidden = len(prompts) == 1
  with tqdm(total=len(prompts), unit='row', disable=hidden) as bar:
    return sampling.generate(
      model,
      params,
      tokenizer,
      prompts,
      numbers,
      max_new_tokens=args.max_new_tokens,
      seed=args.seed,
      stop_strings=args.stop,
      batch_size=args.batch_size,
      progress=lambda done, _: bar.update(done - bar.n),
    )
