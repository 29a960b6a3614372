"""The command `alignax VERB ...`; each verb is a file of this folder."""

import importlib
import sys

from alignax.cli.memory import keep_memory

VERBS = {
  'quickstart': 'align a small model from scratch in a few minutes, and report',
  'train': 'train what a config describes, or go on with it',
  'generate': 'write responses to prompts',
  'eval': 'measure a trained run on its held-out rows',
  'import': 'store a model of Hugging Face or GGUF in our format',
  'export': 'write a model or run as a Hugging Face directory',
  'sweep': 'train many runs, each once, here or on a cluster',
  'report': 'compare runs on one page',
}
MODULES = {'import': 'import_model', 'export': 'export_model'}


def main(argv: list[str] | None = None) -> int:
  """Runs a verb; errors that a user can mend are printed without a trace."""
  argv = sys.argv[1:] if argv is None else argv
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(usage())
    return 0 if argv else 2
  verb, *rest = argv
  if verb not in VERBS:
    print(f'alignax: there is no verb {verb!r}.\n\n{usage()}', file=sys.stderr)
    return 2
  keep_memory()
  trace = '--trace' in rest
  try:
    module = importlib.import_module(f'alignax.cli.{MODULES.get(verb, verb)}')
    return module.main([item for item in rest if item != '--trace']) or 0
  except (ValueError, OSError, RuntimeError) as error:
    if trace:
      raise
    print(f'alignax {verb}: {error}', file=sys.stderr)
    return 1
  except ModuleNotFoundError as error:
    if trace:
      raise
    print(
      f'alignax {verb}: there is no module {error.name!r}; what training needs '
      "is installed by pip install 'alignax[train]', or make setup.",
      file=sys.stderr,
    )
    return 1
  except KeyboardInterrupt:
    print(f'alignax {verb}: stopped', file=sys.stderr)
    return 130


def usage() -> str:
  """All verbs, a line each."""
  lines = [f'  {verb:<12}{what}' for verb, what in VERBS.items()]
  return '\n'.join([
    'usage: alignax VERB [--help] [OPTION ...]',
    '',
    *lines,
    '',
    'alignax VERB --help says more of a verb; --trace shows where an error '
    'comes from.',
  ])
