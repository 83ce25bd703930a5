"""Converts options of services from text or a pipeline file to values. A wrong option raises ValueError with one
line.
"""

from __future__ import annotations

from typing import Any


def integer(name: str, value: Any, minimum: int, maximum: int) -> int:
    """A whole number within minimum..maximum; in text, underscores are allowed."""
    try:
        number = int(value) if not isinstance(value, (bool, float)) else None
    except (TypeError, ValueError):
        number = None
    if number is None or not minimum <= number <= maximum:
        raise ValueError(f"{name} must be a whole number from {minimum} to {maximum}, not {value!r}")
    return number


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(filter(None, choices))}, not {value!r}")
    return str(value)


def key_bytes(name: str, value: Any, size: int) -> bytes:
    """A key of `size` bytes, given as 2 * size hexadecimal digits or as text of that many bytes."""
    raw = value.encode() if isinstance(value, str) else value
    if isinstance(raw, bytes):
        if len(raw) == size:
            return raw
        if len(raw) == 2 * size:
            try:
                return bytes.fromhex(raw.decode("ascii"))
            except ValueError:
                pass
    raise ValueError(f"{name} must have {size} bytes: {2 * size} hexadecimal digits, or {size} characters")
