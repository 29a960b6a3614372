r"""IPO: a margin between two responses, to be reached and not exceeded.

  alignax train --config=configs/ipo.py:size=tiny --workdir=runs/ipo

It is `configs/dpo.py:loss=ipo`; `average_logps` makes it length-normalised.
"""

from configs import dpo


def get_config(arg=None):
  return dpo.get_config(f'loss=ipo,{arg or ""}')
