r"""IPO: a margin between two responses, to be reached and not exceeded.

  alignax train --config=configs/ipo.py:size=tiny --workdir=runs/ipo

37 s on two cores (AMD EPYC), the SFT that it starts from included; accuracy on
held-out pairs 0.50 -> 0.63.

It is `configs/dpo.py:loss=ipo`; `average_logps` makes it length-normalised.
"""

from configs import dpo


def get_config(arg=None):
  return dpo.get_config(f'loss=ipo,{arg or ""}')
