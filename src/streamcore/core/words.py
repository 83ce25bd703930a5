"""A command as words: what `after_file` names, without a shell."""

from __future__ import annotations

import shlex
import shutil

from streamcore.core.errors import UsageError


def command_words(command: str) -> list[str]:
    """The command and its arguments, quoted as in a shell; [] for "". Raises UsageError if there is no such command."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"after_file: {command!r} is not a command: {error}") from None
    if command and not words:
        raise UsageError("after_file is empty: name a command")
    if words and shutil.which(words[0]) is None:
        raise UsageError(f"after_file: there is no command {words[0]!r} that may be run")
    return words
