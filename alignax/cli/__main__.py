"""`python -m alignax.cli VERB ...`."""

import sys

from alignax.cli import main

sys.exit(main())
