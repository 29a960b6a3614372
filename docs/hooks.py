"""Pages that are made from the code: the front page and the losses."""

import importlib
import inspect
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
SECTIONS = ('Args:', 'Returns:', 'Raises:', 'Attributes:')


def on_page_markdown(markdown, page, **_):
  if page.file.src_uri == 'index.md':
    return front_page((ROOT / 'README.md').read_text(encoding='utf-8'))
  return re.sub(
    r'<!-- functions of ([\w.]+) -->',
    lambda match: reference(match[1]),
    markdown,
  )


def front_page(readme: str) -> str:
  """The README, with links to the pages here, and no link out of the site."""
  readme = re.sub(r'\]\(docs/', '](', readme)
  pages = {p.name for p in (ROOT / 'docs').glob('*.md')}

  def keep(match):
    target = match[2].split('#')[0]
    if target in pages or match[2].startswith(('http', '#')):
      return match[0]
    return match[1]

  return re.sub(r'\[([^\]]+)\]\(([^)\s]+)\)', keep, readme)


def reference(module_name: str) -> str:
  """All public functions that a module defines, with their docstrings."""
  module = importlib.import_module(module_name)
  parts = [text_of(inspect.getdoc(module))]
  for name, value in vars(module).items():
    ours = getattr(value, '__module__', None) == module_name
    if ours and inspect.isfunction(value) and not name.startswith('_'):
      parts += [f'### {name}', signature(name, value)]
      parts.append(text_of(inspect.getdoc(value) or ''))
  return '\n\n'.join(parts)


def signature(name: str, function) -> str:
  """Names and defaults; types stand in the docstring, as shapes."""
  parts, keyword = [], False
  for p in inspect.signature(function).parameters.values():
    if p.kind == p.KEYWORD_ONLY and not keyword:
      parts.append('*')
      keyword = True
    default = '' if p.default is p.empty else f'={p.default!r}'
    parts.append(f'{p.name}{default}')
  text = f'{name}({", ".join(parts)})'
  if len(text) > 76:
    text = f'{name}(\n  ' + ',\n  '.join(parts) + ',\n)'
  return f'```python\n{text}\n```'


def text_of(docstring: str) -> str:
  """Markdown of a docstring: equations in blocks, arguments in lists."""
  paragraphs, section = [], False
  for block in re.split(r'\n\s*\n', docstring):
    head, *rest = block.split('\n')
    if head in SECTIONS:
      section = True
      paragraphs += [f'**{head[:-1]}**', items(rest)]
    elif section:
      paragraphs.append(items(block.split('\n')))
    elif all(line.startswith('  ') for line in block.split('\n')):
      paragraphs.append(f'```text\n{inspect.cleandoc(block)}\n```')
    else:
      paragraphs.append(linked(block))
  return '\n\n'.join(paragraphs)


def items(lines: list[str]) -> str:
  """'name: what it is' and its indented lines, as list items."""
  text = inspect.cleandoc('\n'.join(lines))
  found = re.sub(r'\n +', ' ', text).split('\n')
  return '\n'.join(
    '- ' + linked(re.sub(r'^([\w*, ]+):', r'`\1`:', item)) for item in found
  )


def linked(text: str) -> str:
  """Text in which addresses are links and nothing is a tag."""
  text = text.replace('&', '&amp;').replace('<', '&lt;')
  return re.sub(r'(https?://[^\s)]+[^\s).,;])', r'<\1>', text)
