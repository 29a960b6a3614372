"""What a run writes, and what of it stays when the run goes on."""

import json

import jax.numpy as jnp
import numpy as np

from alignax import metrics


def write(workdir, steps, *, start=0, tokens=0, every=1):
  writer = metrics.Writer(
    workdir, start=start, tokens=tokens, every=every, tensorboard=False
  )
  written = [
    writer.write(step, {'loss': np.float32(step)}, tokens=5) for step in steps
  ]
  writer.close()
  return written


def rows(workdir):
  return [(row['step'], row['tokens']) for row in metrics.read(workdir)]


def test_a_line_is_written_when_the_next_step_is_under_way(tmp_path):
  written = write(tmp_path, [1, 2, 3])
  assert written[0] is None
  assert [row['loss'] for row in written[1:]] == [1.0, 2.0]
  assert rows(tmp_path) == [(1, 5), (2, 10), (3, 15)]


def test_lines_after_the_checkpoint_are_dropped(tmp_path):
  write(tmp_path, [1, 2, 3, 4])
  write(tmp_path, [3, 4, 5], start=2, tokens=10)
  assert rows(tmp_path) == [(i, 5 * i) for i in range(1, 6)]


def test_tokens_go_on_between_two_lines(tmp_path):
  write(tmp_path, range(1, 4), every=2)
  write(tmp_path, range(4, 7), start=3, tokens=15, every=2)
  assert rows(tmp_path) == [(2, 10), (4, 20), (6, 30)]


def test_tokens_that_the_device_counts_are_awaited_when_asked_for(tmp_path):
  writer = metrics.Writer(tmp_path, start=0, every=2, tensorboard=False)
  for step in range(1, 4):
    writer.write(step, {}, tokens=jnp.int32(2**30))
  assert writer.tokens == 3 * 2**30  # More than the device's integers hold.
  writer.line(3, {'heldout/loss': 1.0})
  writer.close()
  found = [(2, 2**31), (3, 3 * 2**30)]
  assert sorted(rows(tmp_path)) == found


def test_a_run_without_a_checkpoint_starts_anew(tmp_path):
  writer = metrics.Writer(tmp_path, start=0, tensorboard=False)
  writer.line(0, {'heldout/loss': 1.0})
  writer.close()
  write(tmp_path, [1])
  assert rows(tmp_path) == [(1, 5)]


def test_a_line_cut_by_a_kill_is_left_out(tmp_path):
  write(tmp_path, [1, 2])
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 3, "los')
  assert rows(tmp_path) == [(1, 5), (2, 10)]
  write(tmp_path, [3], start=2, tokens=10)
  assert rows(tmp_path) == [(1, 5), (2, 10), (3, 15)]


def test_samples_of_later_steps_are_dropped(tmp_path):
  metrics.append_samples(tmp_path, [{'step': 3}, {'step': 6}])
  metrics.drop_samples_after(tmp_path, 3)
  text = (tmp_path / 'samples.jsonl').read_text()
  assert [json.loads(line) for line in text.splitlines()] == [{'step': 3}]


def test_text_is_replaced_whole(tmp_path):
  path = tmp_path / 'config.json'
  metrics.write_text(path, 'one')
  metrics.write_text(path, 'two')
  assert path.read_text() == 'two' and list(tmp_path.iterdir()) == [path]
