"""Personal fields: names, telephone numbers and remarks, kept outside the journal and bound to it by digests. Pure.

The journal has the digest alone. It is over a salt of 32 random bytes, which is erased with the fields: nobody can find
them out from the digest then, not by trying every telephone number either.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import msgspec

from auction.model.bid import digest

SALT_BYTES: Final = 32
_REFERENCE: Final = "remark:"
_REFERENCE_LENGTH: Final = len(_REFERENCE) + 64


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a person, or of what it said. `about` is the party, or the agreement and whose opinion."""

    about: str
    name: str = ""
    number: str = ""
    remark: str = ""


class Personal(NamedTuple):
    """Personal fields as they are stored: `body` is a Person as JSON, `sequence` the entry that has the digest."""

    digest: str
    sequence: int
    salt: bytes
    body: str

    @property
    def person(self) -> Person:
        return msgspec.json.decode(self.body, type=Person)

    def is_bound(self) -> bool:
        """Whether these are the fields that the digest is of."""
        return self.digest == digest_of(self.salt, self.body)


def personal_of(person: Person, sequence: int, salt: bytes) -> Personal:
    body = msgspec.json.encode(person).decode()
    return Personal(digest_of(salt, body), sequence, salt, body)


def digest_of(salt: bytes, body: str) -> str:
    return digest("auction.personal", hashlib.sha256(salt).digest(), salt, body.encode()).hex()


def as_reference(digest: str) -> str:
    """What stands in the journal in the place of a remark."""
    return _REFERENCE + digest


def referenced(text: str) -> str:
    """The digest that stands in the place of a remark; empty for a remark that stands there itself, as it did before
    remarks were kept outside the journal."""
    is_one = len(text) == _REFERENCE_LENGTH and text.startswith(_REFERENCE)
    return text.removeprefix(_REFERENCE) if is_one else ""
