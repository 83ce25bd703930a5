"""The parser of every command. Flags for the keys of a run are in flags.py, which loads the table of keys.

This file imports nothing heavy, because `streamcore --help` and commands without keys need only this file.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP_COLUMN = 28


class Parser(argparse.ArgumentParser):
    """An error is one line that says what to do. Help prints examples without reflowing them."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", Formatter)
        super().__init__(**options)

    def print_help(self, file: Any = None) -> None:
        """As argparse's, but an output that cannot be written is an OSError, whatever the length of the help."""
        (file or sys.stdout).write(self.format_help())

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message} (try '{self.prog} --help')\n")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows a letter and a name with one metavar: `-n, --workers N`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=HELP_COLUMN)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        words = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {words}"
