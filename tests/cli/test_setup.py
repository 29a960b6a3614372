"""What messages and pages tell to install can be installed."""

import pathlib
import re
import runpy
import sys
import types

ROOT = pathlib.Path(__file__).parents[2]
FILES = (
  ROOT / 'README.md',
  *ROOT.glob('docs/*.md'),
  *ROOT.glob('alignax/**/*.py'),
)


def test_every_extra_that_is_named_is_one(monkeypatch):
  made = {}
  stub = types.ModuleType('setuptools')
  stub.setup, stub.find_packages = made.update, lambda **_: []
  monkeypatch.setitem(sys.modules, 'setuptools', stub)
  runpy.run_path(str(ROOT / 'setup.py'))
  for path in FILES:
    text = path.read_text(encoding='utf-8')
    for name in re.findall(r"pip install '[^']*alignax\[(\w+)\]", text):
      assert name in made['extras_require'], f'{path}: alignax[{name}]'
