"""PPO with pretraining text beside it, from the command line's keys."""

import pytest
from small_runs import losses, train

TEXT = 'synthetic:text?n=64&seed=0&split=train'
PTX = {
  'data.ptx_path': TEXT, 'data.ptx_length': 32, 'data.ptx_batch_size': 16,
  'algorithm_kw.ptx_coef': 0.5, 'total_steps': 4, 'evals.samples': 0,
}  # fmt: skip


@pytest.fixture(scope='module')
def start(home, tmp_path_factory):
  """Where PPO starts: a policy, and a reward model."""
  folder = tmp_path_factory.mktemp('start')
  train(home, 'sft', folder / 'sft', total_steps=1)
  train(home, 'reward', folder / 'reward', total_steps=1)
  return {
    'init_from': str(folder / 'sft'),
    'role_from.reward': str(folder / 'reward'),
  }


@pytest.mark.slow
def test_the_text_is_learned_beside_the_reward(home, start, tmp_path):
  given = {**start, **PTX, 'algorithm_kw.kl_coef': 0.0}
  train(home, 'ppo', tmp_path / 'mixed', **given)
  nll = losses(tmp_path / 'mixed', 'ptx/nll')
  assert len(nll) == 4 and nll[-1] < nll[0]
  # The term is weighed: half of its mean is in the loss.
  term = losses(tmp_path / 'mixed', 'loss/ptx')[0]
  assert term == pytest.approx(0.5 * nll[0], rel=1e-5)
  # A run that was stopped goes on with the text of the next step.
  train(home, 'ppo', tmp_path / 'cut', **{**given, 'total_steps': 2})
  train(home, 'ppo', tmp_path / 'cut', **given)
  assert losses(tmp_path / 'cut', 'ptx/nll') == nll
  # Tokens are those of the prompts and of what was sampled.
  tokens = losses(tmp_path / 'mixed', 'tokens')
  sampled = 8 * sum(losses(tmp_path / 'mixed', 'objective/length'))
  assert sampled + 4 * 8 < tokens[-1] <= sampled + 4 * 8 * 32
  assert losses(tmp_path / 'cut', 'tokens') == tokens
