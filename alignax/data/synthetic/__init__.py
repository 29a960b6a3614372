"""A small world in which the truth is known.

Instructions of some twenty task families, demonstrations, preferences and raw
text are drawn from (seed, index); `gold_score` knows what a response is worth,
and simulated annotators choose by it with known noise.
"""

from alignax.data.synthetic.annotators import prefer, rank, utility
from alignax.data.synthetic.instructions import instruction, split_of
from alignax.data.synthetic.responses import CLEAN, MIXED, respond
from alignax.data.synthetic.rows import rows
from alignax.data.synthetic.scorer import answered, gold_score
from alignax.data.synthetic.tasks import FAMILIES, TASKS
from alignax.data.synthetic.tokenizer import make_tokenizer, vocabulary
from alignax.data.synthetic.tools import TOOLS, tool_score

__all__ = [
  'CLEAN',
  'FAMILIES',
  'MIXED',
  'TASKS',
  'TOOLS',
  'answered',
  'gold_score',
  'instruction',
  'make_tokenizer',
  'prefer',
  'rank',
  'respond',
  'rows',
  'split_of',
  'tool_score',
  'utility',
  'vocabulary',
]
