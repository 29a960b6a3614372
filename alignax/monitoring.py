"""Watches a run for reward hacking, as `config.monitor` asks for it.

The test is in `evals/monitor.py`. With `monitor.stop`, a run that is warned of
ends where the judge was highest; see `complete.py`.
"""

import math

from tqdm import tqdm

from alignax import checks, metrics
from alignax.evals import monitor


class Watch:
  """What a run's evaluations have shown so far.

  Those at which the proxy or the judge is not finite are counted and left out:
  one such number would be in the noise of every window from then on.
  """

  def __init__(self, config, workdir, start: int):
    """Takes up what was written until step `start`."""
    m = config.monitor
    self.proxy, self.judge, self.stop = m.proxy, m.judge, m.stop
    self.test = dict(window=m.window, alpha=m.alpha, patience=m.patience)
    self.seen: list[tuple[int, float, float]] = []
    self.left_out = 0
    self.warned = False
    for line in metrics.read(workdir):
      if line['step'] <= start and start:
        self._add(line['step'], line)
        self.warned |= bool(line.get('monitor/warning'))

  def add(self, step: int, numbers: dict) -> dict[str, float]:
    """What to write beside the numbers of an evaluation.

    Raises:
      ValueError: the first evaluation has no such numbers.
    """
    known = self._add(step, numbers)
    first = not self.seen and not self.left_out
    for key, name in (('proxy', self.proxy), ('judge', self.judge)):
      if first and name not in numbers:
        raise ValueError(
          f'monitor.{key} is {name!r}, which is not measured'
          f'{checks.nearest(name, numbers)}.'
        )
    if known is None:
      return {}
    count = {'monitor/left_out': self.left_out} if self.left_out else {}
    if not known:
      self._say_left_out(step, numbers)
      return count
    steps, proxy, judge = zip(*self.seen)
    verdict = monitor.judge(proxy, judge, **self.test)
    found = {'best_step': self.best, 'warning': float(verdict.warning)}
    if verdict.judge is not None:
      found |= {
        'proxy_slope': verdict.proxy.value, 'judge_slope': verdict.judge.value
      }  # fmt: skip
    if verdict.warning and not self.warned:
      self.warned = True
      self._warn(step, steps, judge, verdict)
    return {f'monitor/{name}': x for name, x in found.items()} | count

  @property
  def best(self) -> int:
    """The step at which the judge was highest, the first of several."""
    return max(self.seen, key=lambda row: row[2])[0]

  def _add(self, step: int, numbers) -> bool | None:
    """Whether an evaluation counts; None where it has not both numbers."""
    values = numbers.get(self.proxy), numbers.get(self.judge)
    if None in values:
      return None
    if not all(map(math.isfinite, values)):
      self.left_out += 1
      return False
    self.seen.append((step, *values))
    return True

  def _say_left_out(self, step, numbers):
    if self.left_out == 1:  # The others are counted in the metrics.
      tqdm.write(
        f'step {step}: the monitor leaves out an evaluation: {self.proxy} is '
        f'{numbers[self.proxy]} and {self.judge} is {numbers[self.judge]}.'
      )

  def _warn(self, step, steps, judge, verdict):
    turn = monitor.turn(steps, judge)
    since = ''
    if turn is not None:
      since = f', since about step {turn.step:.0f}'
      since += f' ({turn.low:.0f} to {turn.high:.0f})'
    tqdm.write(
      f'step {step}: reward hacking? {self.proxy} keeps rising '
      f'({verdict.proxy.value:+.2g} an evaluation, p = {verdict.proxy.p:.2g}), '
      f'while {self.judge} falls ({verdict.judge.value:+.2g}, '
      f'p = {1 - verdict.judge.p:.2g}){since}. It was highest at step '
      f'{self.best}.'
    )


def check(config):
  """Raises for settings that do not go together."""
  m, kept = config.monitor, config.checkpoint
  if bool(m.proxy) != bool(m.judge):
    raise ValueError(
      f'monitor.proxy is {m.proxy!r} and monitor.judge {m.judge!r}: give both, '
      'or neither.'
    )
  if m.stop and not m.judge:
    raise ValueError('monitor.stop needs monitor.proxy and monitor.judge.')
  if m.judge and not 0 < m.alpha < 0.5:
    raise ValueError(f'monitor.alpha is {m.alpha}; it is between 0 and 0.5.')
  if m.judge and (m.window < 4 or m.patience < 1):
    raise ValueError(
      f'monitor.window is {m.window} and monitor.patience {m.patience}; they '
      'are at least 4 and 1.'
    )
  if m.stop and kept.best_metric not in ('', m.judge):
    raise ValueError(
      f'monitor.stop ends at the best by {m.judge!r}, and '
      f'checkpoint.best_metric is {kept.best_metric!r}: leave that empty.'
    )


def watched(config, evaluate, workdir, start: int):
  """`evaluate`, with what the monitor says of its numbers; as it is if off."""
  if not config.monitor.judge:
    return evaluate
  watch = Watch(config, workdir, start)

  def both(step, params, frozen):
    numbers = evaluate(step, params, frozen)
    return numbers | watch.add(step, numbers)

  return both


def at_end(config, step: int, numbers) -> tuple[bool, int | None]:
  """Whether this step is the best so far, and the step to end at, or None."""
  if not config.monitor.stop or 'monitor/best_step' not in (numbers or {}):
    return False, None
  best = int(numbers['monitor/best_step'])
  return best == step, best if numbers['monitor/warning'] else None
