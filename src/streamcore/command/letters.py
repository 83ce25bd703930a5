"""tcpdump's letters that do not serve here: each is answered by a line that says what does. And its file of an
expression. Letters that mean the same here are in the table of keys.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from streamcore.core.errors import UsageError

PRINTS = "no packets are printed: give -w - and pipe it into 'tcpdump {} -r -', or 'streamcore packets' makes a table"
HINTS: dict[str, str] = {
    "A": PRINTS.format("-A"),
    "D": "'ip link' lists the interfaces, and 'streamcore doctor -i NAME' examines one",
    "L": "'streamcore doctor -i NAME' says what an interface carries",
    "Q": "give the expression 'inbound' or 'outbound'",
    "U": "a live packet is written 100 ms after it came, at the latest; --segment-ms 1 writes it after 1 ms",
    "V": "give -r for each capture",
    "X": PRINTS.format("-X"),
    "d": "'tcpdump -d' prints the program of an expression, and 'streamcore check' checks a pipeline file with one",
    "e": PRINTS.format("-e"),
    "n": "addresses and ports are never turned into names, so leave it out; -n N is the number of workers",
    "t": PRINTS.format("-t"),
    "x": PRINTS.format("-x"),
}
VALUED = "n"  # also a letter of ours, if a number follows
COMMANDS = ("run", "packets", "flows")
LETTERS = re.compile(rf"-[pqv]*([{''.join(HINTS)}])(.*)")


def refuse_letters(command: str, arguments: Sequence[str]) -> None:
    """Raises UsageError with the hint for the first of tcpdump's letters that has another meaning here, or none."""
    if command not in COMMANDS:
        return
    for number, argument in enumerate(arguments):
        if argument == "--":
            return
        found = LETTERS.fullmatch(argument)
        if found is None or argument.startswith("--"):
            continue
        letter, value = found[1], found[2] or (arguments[number + 1] if number + 1 < len(arguments) else "")
        if letter == VALUED and command == "run" and is_number(value):
            continue
        raise UsageError(f"{argument}: {HINTS[letter]}")


def is_number(value: str) -> bool:
    """Whether a value was meant for -n N, even if it is wrong."""
    return bool(re.fullmatch(r"[-+]?[0-9.]+", value))


def expression_of(path: str) -> str:
    """The expression in a file, as tcpdump's -F reads it: without what follows a #. "-": standard input. Raises
    UsageError."""
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"-F: cannot read {path}: {words.lower()}") from None
    expression = " ".join(" ".join(line.partition("#")[0] for line in text.splitlines()).split())
    if not expression:
        raise UsageError(f"-F: {path} has no expression")
    return expression
