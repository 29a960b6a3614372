"""Charts as inline SVG: sharp at any size, with values under the pointer."""

import math
from collections.abc import Mapping, Sequence

from alignax.report.page import Section, escape, estimate, number, to_json

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 30
COLOURS = 8  # `--c0` to `--c7` of the page; more repeat, dashed.
POINTS = 200  # Longer curves are averaged down to as many.
SHOWN_CHARTS = 6

# A point is (x, y) or (x, y, low, high).
Curve = Sequence[tuple[float, ...]]


def curves(
  title: str,
  charts: Mapping,
  *,
  x: str = 'step',
  note: str = '',
  names: Sequence[str] = (),
) -> Section:
  """Charts of curves, with one legend.

  Args:
    title: the heading.
    charts: curves by name, by chart: {'loss': {'DPO': [(0, 0.7), ...]}}; or
      curves by name only, which makes one chart. A point may have an interval,
      (x, y, low, high).
    x: what x counts.
    note: a sentence under the heading.
    names: of curves, in the order that gives them their colours: sections with
      the same names then agree on them.
  """
  if charts and not isinstance(next(iter(charts.values())), Mapping):
    charts = {'': charts}
  return _section(title, charts, x, note, names, dots=False)


def frontier(
  title: str,
  charts: Mapping,
  *,
  x: str = 'KL to the reference, nats',
  note: str = '',
  names: Sequence[str] = (),
) -> Section:
  """As `curves`, with a dot at every point: what y is had at what price x."""
  return _section(title, charts, x, note, names, dots=True)


def _section(title, charts, x, note, names, dots) -> Section:
  used = list(dict.fromkeys(name for c in charts.values() for name in c))
  order = {name: i for i, name in enumerate(dict.fromkeys([*names, *used]))}
  drawn = [
    _figure(name, curves, order, x, dots) for name, curves in charts.items()
  ]
  shown, folded = drawn[:SHOWN_CHARTS], drawn[SHOWN_CHARTS:]
  more = ''
  if folded:
    more = (
      f'<details><summary>{len(folded)} more charts</summary>'
      f'<div class="charts">{"".join(folded)}</div></details>'
    )
  note = f'<p class="note">{escape(note)}</p>' if note else ''
  legend = _legend({name: order[name] for name in used})
  body = f'<div class="charts">{"".join(shown)}</div>'
  return Section(title, note + legend + body + more)


def _legend(order: Mapping[str, int]) -> str:
  items = ''.join(
    f'<li><svg width="22" height="10" aria-hidden="true"><line x1="1" x2="21" '
    f'y1="5" y2="5" {_stroke(i)}/></svg>{escape(name)}</li>'
    for name, i in order.items()
  )
  return f'<ul class="legend">{items}</ul>'


def _stroke(i: int) -> str:
  dash = ('', '5 3', '2 3')[i // COLOURS % 3]
  dash = f' stroke-dasharray="{dash}"' if dash else ''
  return f'class="line c{i % COLOURS}"{dash}'


def _figure(name, curves, order, x_name, dots) -> str:
  curves = {k: thin(finite(points)) for k, points in curves.items()}
  curves = {k: points for k, points in curves.items() if points}
  caption = f'<figcaption>{escape(name)}</figcaption>' if name else ''
  if not curves:
    return f'<figure>{caption}<p class="missing">not measured</p></figure>'
  every = [p for points in curves.values() for p in points]
  xs, ys = [p[0] for p in every], [v for p in every for v in p[1:]]
  x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
  to_x = _scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
  to_y = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
  parts = [*_grid(x_ticks, y_ticks, to_x, to_y, x_name)]
  hover = []
  for name, points in curves.items():
    i = order[name]
    at = [(round(to_x(p[0]), 1), round(to_y(p[1]), 1)) for p in points]
    parts += _curve(points, at, i, to_x, to_y, dots)
    values = [
      [*xy, number(p[0]), _value(p)] for xy, p in zip(at, points)
    ]
    hover.append({'name': name, 'c': i % COLOURS, 'p': values})
  data = to_json({'x': x_name, 'near': dots, 'curves': hover})
  return (
    f'<figure>{caption}<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" '
    f'role="img" aria-label="{escape(_spoken(curves))}" data-chart="{data}">'
    f'{"".join(parts)}</svg></figure>'
  )


def _value(point) -> str:
  if len(point) == 2:
    return number(point[1])
  mean, interval = estimate(*point[1:])
  return f'{mean} ({interval})' if interval else mean


def _spoken(curves) -> str:
  """What a screen reader says of a chart."""
  return '; '.join(
    f'{name} from {number(points[0][1])} to {number(points[-1][1])}'
    for name, points in curves.items()
  )


def _grid(x_ticks, y_ticks, to_x, to_y, x_name):
  for y in y_ticks:
    at = round(to_y(y), 1)
    yield (
      f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" '
      f'y2="{at}"/><text class="tick" x="{LEFT - 6}" y="{at + 3.5}" '
      f'text-anchor="end">{tick(y, y_ticks)}</text>'
    )
  for x in x_ticks:
    yield (
      f'<text class="tick" x="{to_x(x):.1f}" y="{HEIGHT - BOTTOM + 14}" '
      f'text-anchor="middle">{tick(x, x_ticks)}</text>'
    )
  yield (
    f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 3}" '
    f'text-anchor="middle">{escape(x_name)}</text>'
  )


def _curve(points, at, i, to_x, to_y, dots):
  if all(len(p) == 4 for p in points) and len(points) > 1:
    edge = [f'{to_x(p[0]):.1f},{to_y(p[3]):.1f}' for p in points]
    edge += [f'{to_x(p[0]):.1f},{to_y(p[2]):.1f}' for p in reversed(points)]
    yield f'<polygon class="band c{i % COLOURS}" points="{" ".join(edge)}"/>'
  if len(at) > 1:
    path = ' '.join(f'{x},{y}' for x, y in at)
    yield f'<polyline {_stroke(i)} points="{path}"/>'
  if dots or len(at) == 1:
    for x, y in at:
      yield f'<circle class="dot c{i % COLOURS}" cx="{x}" cy="{y}" r="3.2"/>'


def _scale(low: float, high: float, start: float, end: float):
  """Maps [low, high] to [start, end]."""
  span = (high - low) or 1.0
  return lambda value: start + (value - low) / span * (end - start)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
  """Round numbers from at or below `low` to at or above `high`."""
  if low == high:
    low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
  rough = (high - low) / about
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [i * step for i in range(first, last + 1)]


def tick(value: float, all_ticks) -> str:
  """A tick's label, with as many decimals as tell it from its neighbours."""
  step = all_ticks[1] - all_ticks[0]
  size = max(abs(t) for t in all_ticks)
  if size >= 1e6 or size < 1e-3:
    return f'{value:.1e}' if value else '0'
  if size >= 1e4:
    return f'{value / 1000:g}k' if value else '0'
  decimals = max(0, -math.floor(math.log10(step) + 1e-9))
  if round(step, decimals) != round(step, decimals + 1):
    decimals += 1  # Steps of 2.5.
  return f'{value:.{decimals}f}'


def finite(points: Curve) -> list[tuple[float, ...]]:
  """Points whose numbers are all known."""
  return [
    tuple(p)
    for p in points
    if all(v is not None and math.isfinite(v) for v in p)
  ]


def thin(points: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
  """Means of neighbouring points, so that at most `POINTS` are left."""
  size = -(-len(points) // POINTS)
  if size <= 1:
    return points
  groups = [points[i : i + size] for i in range(0, len(points), size)]
  return [tuple(sum(v) / len(v) for v in zip(*group)) for group in groups]
