"""The README's code runs, the pages build, and name what there is."""

import importlib
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r'<!-- test -->\s*```python\n(.*?)```', re.DOTALL)
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def blocks():
  for path in PAGES:
    for i, code in enumerate(BLOCK.findall(path.read_text(encoding='utf-8'))):
      yield pytest.param(code, id=f'{path.stem}-{i}')


@pytest.mark.parametrize('code', list(blocks()))
def test_code_runs(code):
  exec(compile(code, 'README.md', 'exec'), {'__name__': 'readme'})


def test_readme_shows_code_that_is_run():
  assert BLOCK.search((ROOT / 'README.md').read_text(encoding='utf-8'))


def test_site_builds(tmp_path):
  result = subprocess.run(
    [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet',
     '--site-dir', str(tmp_path / 'site')],
    cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert result.returncode == 0, result.stdout + result.stderr
  losses = (tmp_path / 'site' / 'losses.html').read_text('utf-8')
  import alignax

  public = [n for n in dir(alignax.losses) if n.endswith('_loss')]
  assert not [n for n in public if f'id="{n}"' not in losses]
  index = (tmp_path / 'site' / 'index.html').read_text('utf-8')
  assert 'make quickstart' in index


def test_every_config_key_is_documented():
  from configs import common

  config, _ = common.base()
  text = (ROOT / 'docs' / 'configs.md').read_text(encoding='utf-8')
  missing = []
  for key, value in config.items():
    parts = value.keys() if hasattr(value, 'keys') else ()
    names = [f'{key}.{p}' for p in parts] or [key]
    for name in names:
      last = name.split('.')[-1]
      if f'`{name}`' not in text and f'`.{last}`' not in text:
        missing.append(name)
  assert not missing


def test_verbs_and_targets_in_the_readme_exist():
  from alignax.cli import VERBS

  text = (ROOT / 'README.md').read_text(encoding='utf-8')
  shell = '\n'.join(re.findall(r'```sh\n(.*?)```', text, re.DOTALL))
  used = set(re.findall(r'^alignax ([a-z]+)', shell, re.MULTILINE))
  assert used
  assert used <= set(VERBS)
  makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
  for target in re.findall(r'`?make ([a-z-]+)', text):
    assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


def test_what_every_algorithm_reads_is_said():
  text = (ROOT / 'docs' / 'data.md').read_text(encoding='utf-8')
  rows = dict(re.findall(r'^\| `(\w+)` \| (`.*?) \|', text, re.MULTILINE))
  for path in (ROOT / 'alignax' / 'algorithms').glob('[a-z]*.py'):
    kind = importlib.import_module(f'alignax.algorithms.{path.stem}').DATA
    assert f'`{path.stem}`' in rows[kind], f'{path.stem} reads {kind}'


@pytest.mark.parametrize(
  'script', [*sorted((ROOT / 'launch').glob('*.sh')), ROOT / '.ci' / 'run'],
  ids=lambda path: path.name,
)  # fmt: skip
def test_scripts_parse(script):
  subprocess.run(['bash', '-n', str(script)], check=True)


def test_links_of_pages_lead_somewhere():
  for path in PAGES:
    text = path.read_text(encoding='utf-8')
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
      if not target.startswith(('http', '#')):
        target = target.split('#')[0]
        assert (path.parent / target).exists(), f'{path.name}: {target}'
