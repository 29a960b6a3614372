"""Every experiment's sweep resolves: no key or config that is not there."""

import collections
import pathlib

import pytest

from alignax.cli import configs
from alignax.sweeps import plan

ROOT = pathlib.Path(__file__).parents[2]
SWEEPS = sorted((ROOT / 'experiments').glob('*/sweep.py'))


@pytest.mark.parametrize('path', SWEEPS, ids=lambda path: path.parent.name)
def test_every_run_resolves(path, monkeypatch):
  monkeypatch.chdir(ROOT)
  runs = plan.make_plan(plan.load_sweep(str(path)), configs.load)
  assert len({run.name for run in runs}) == len(runs)
  known = {run.id for run in runs}
  assert all(set(run.after.values()) <= known for run in runs)


def test_preference_losses_share_their_stages(monkeypatch):
  monkeypatch.chdir(ROOT)
  path = ROOT / 'experiments' / 'preference_losses' / 'sweep.py'
  runs = plan.make_plan(plan.load_sweep(str(path)), configs.load)
  kinds = collections.Counter(run.id.rsplit('-', 1)[0] for run in runs)
  assert kinds['sft'] == 2 and kinds['reward'] == 1  # Pretraining, and SFT.
  # Twelve losses, and DPO at three betas more.
  assert kinds['dpo'] == 15 * 5 and kinds['ppo'] == 5
