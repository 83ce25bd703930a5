"""Text that others chose (workers, providers, a market), made fit to be shown: bounded, of printable characters."""

from __future__ import annotations

SHOWN_CHARACTERS_MAX = 300


def shown(words: str, characters_max: int = SHOWN_CHARACTERS_MAX) -> str:
    """words as one line: what is not printable (control characters, escapes, what turns the direction of text) becomes
    "?", and what is too long ends in "…".
    """
    line = " ".join(words[: 4 * characters_max].split())
    line = "".join(each if each.isprintable() else "?" for each in line)
    return line if len(line) <= characters_max else line[: characters_max - 1] + "…"


def shown_lines(words: str) -> str:
    """Several lines of our own, in which text of others may stand: what is not printable, other than the ends of lines,
    becomes "?".
    """
    if words.isprintable():
        return words
    return "\n".join("".join(each if each.isprintable() else "?" for each in line) for line in words.split("\n"))
