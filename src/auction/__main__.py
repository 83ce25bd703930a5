"""`python -m auction` is the command `auction`."""

import sys

from auction.cli import main

sys.exit(main())
