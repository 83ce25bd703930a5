"""`python -m auction` is the command `auction`."""

import sys

from auction.command.cli import main

sys.exit(main())
