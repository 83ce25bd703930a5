"""Reads patterns, one per line, in the syntax that Hyperscan and Python's `re` share. scan.py searches for them.

    # a comment                      empty lines are comments, too
        EICAR-STANDARD-ANTIVIRUS         this text itself, as UTF-8
        /user-agent: *curl/i             a regular expression
        curl: /user-agent: *curl/i       a regular expression with a name; without one, the line is the name

Flags: i (ignore ASCII case), s (a dot also matches a newline), m (^ and $ also match at line ends). Expressions may use
literals, `.`, classes, `\\d \\w \\s` and their opposites, `\\xHH`, `| ( ) (?: )`, `? * + {n} {n,} {n,m}` greedy or
lazy, `^ $ \\b \\B`.
"""

from __future__ import annotations

import re
import warnings
from typing import NamedTuple

NAME_MAX = 80  # characters
PATTERNS_MAX = 10_000

_REGULAR = re.compile(r"(?:(?P<name>[^/\s][^/]*?)\s*:\s*)?/(?P<expression>.+)/(?P<flags>[a-z]*)\Z", re.DOTALL)
_FLAGS = {"i": re.IGNORECASE, "s": re.DOTALL, "m": re.MULTILINE}
_SAMPLES = (
    b"",
    b"a",
    b"ab",
    b" ",
    b"\n",
    b"a\nb",
)  # an expression that can match nothing at all matches the empty string in one of these
_ESCAPES = "dDwWsSnrtf"  # besides \xHH, \b, \B and punctuation
# Constructs that one of the two engines lacks, or understands differently.
_TOKENS = re.compile(
    r"(?P<escape>\\(?:x[0-9A-Fa-f]{2}|.))|(?P<group>\(\?.?)|(?P<possessive>[*+?}]\+)|(?P<count>\{\d+(?:,\d*)?\})|(?P<brace>\{)"
    r"|(?P<open>\[)|(?P<anchor>[\^$])|(?P<other>.)",
    re.DOTALL,
)
_CLASS = re.compile(r"\[\^?\]?(?:\\(?:x[0-9A-Fa-f]{2}|.)|[^\]\\\[])*\]", re.DOTALL)


class Pattern(NamedTuple):
    name: str
    expression: bytes  # as both engines take it
    flags: int  # for `re`
    bound: bool  # whether a match depends on where the text begins or ends, or on what is next to the match
    compiled: re.Pattern[bytes]


def read_patterns(text: str) -> list[Pattern]:
    """The patterns in a file's text. Raises ValueError that names the line and the fault."""
    patterns: dict[str, Pattern] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            pattern = _read_line(line)
            if pattern.name in patterns:
                raise ValueError("an earlier pattern has the same name: give it another")
        except ValueError as error:
            raise ValueError(f"line {number} ({_short(line)}): {error}") from error
        patterns[pattern.name] = pattern
    if not 1 <= len(patterns) <= PATTERNS_MAX:
        raise ValueError(f"there are {len(patterns)} patterns: give 1 to {PATTERNS_MAX}")
    return list(patterns.values())


def _read_line(line: str) -> Pattern:
    matched = _REGULAR.match(line)
    if matched is None:
        expression = re.escape(line.encode())
        return Pattern(_short(line), expression, 0, False, re.compile(expression))
    flags = 0
    for flag in matched["flags"]:
        if flag not in _FLAGS:
            raise ValueError(f"there is no flag {flag}: use i, s or m")
        flags |= _FLAGS[flag]
    bound = _check_syntax(matched["expression"])
    expression = matched["expression"].encode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compiled = re.compile(expression, flags)
    except (re.error, FutureWarning, DeprecationWarning, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if any(not found[0] for sample in _SAMPLES for found in compiled.finditer(sample)):
        raise ValueError("it can match the empty text, so it would match everywhere")
    return Pattern(_short(matched["name"] or line), expression, flags, bound, compiled)


def _check_syntax(expression: str) -> bool:
    """Raises ValueError for what the two engines read differently. Returns whether it looks beyond the match."""
    bound = False
    at = 0
    while at < len(expression):
        token = _TOKENS.match(expression, at)
        assert token is not None  # the last alternative matches anything
        kind, text = token.lastgroup, token[0]
        if kind == "open":
            at = _check_class(expression, at)
            continue
        if kind == "escape":
            bound |= text in ("\\b", "\\B")
            if text[1].isalnum() and text[1] not in _ESCAPES + "bB" and len(text) != 4:
                raise ValueError(f"{text} is not supported")
        elif kind == "group" and text != "(?:":
            raise ValueError(f"{text}…) is not supported")
        elif kind == "possessive":
            raise ValueError(f"{text} is not supported")
        elif kind == "brace":
            raise ValueError("write \\{ for a brace")
        elif kind == "anchor":
            bound = True
        elif text == "\\":
            raise ValueError("it ends with a backslash")
        at = token.end()
    return bound


def _check_class(expression: str, at: int) -> int:
    """Where the character class at `at` ends."""
    matched = _CLASS.match(expression, at)
    if matched is None:
        raise ValueError("a character class does not end, or has an unescaped [ in it")
    for escape in re.findall(r"\\(x[0-9A-Fa-f]{2}|.)", matched[0], re.DOTALL):
        if escape[0].isalnum() and escape not in _ESCAPES and len(escape) != 3:
            raise ValueError(f"\\{escape} is not supported in a character class")
    return matched.end()


def _short(text: str) -> str:
    return text if len(text) <= NAME_MAX else text[: NAME_MAX - 1] + "…"
