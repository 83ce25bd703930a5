"""Parties: providers, recipients, and a recipient's users, devices and telephone numbers.

Here are the kinds of party, E.164 numbers, Ed25519 signatures over canonical bytes, and tokens. The moderator passes in
clock and randomness.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from auction.model.errors import BadNumber, BadSignature, BadValue, Expired

KINDS: Final = ("provider", "recipient", "user", "device", "number")
ORGANISATIONS: Final = frozenset({"provider", "recipient"})
ID_LENGTH_MAX: Final = 128
ATTRIBUTES_MAX: Final = 16
FORMER_KEYS_MAX: Final = 100
SIGNED_VALIDITY_MS_MAX: Final = 7 * 24 * 3_600_000  # a nonce must be remembered while its statement is valid

_PRIME: Final = 2**255 - 19
# Ids that the market gives (`Draft.new_id`), and keys: accounts and links are found by both, so nobody may choose one.
# A block that an auction is asked for is named `block-of-` it.
_RESERVED: Final = re.compile(
    r"(agreement|auction|bid|block|group|party)-\d+(\.\d+)?|block-of-.*|[0-9a-fA-F]{64}", re.ASCII
)
_GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493


class Party(msgspec.Struct, frozen=True, omit_defaults=True):
    """One party. `belongs_to` names the recipient (or the user) that a user, device or number belongs to; `controller`
    names the party that controls it, so that linked parties cannot bid against each other. Rates are in bits/s."""

    id: str
    kind: str
    public_key: str = ""  # 32 bytes as hexadecimal digits; empty for a party that never signs
    token_hash: str = ""
    belongs_to: str = ""
    controller: str = ""
    capacity_bps: int = 0
    registered_ms: int = 0
    attributes: dict[str, str] = {}  # set by the operator
    former_keys: tuple[str, ...] = ()  # former keys still link parties
    capacity_from_ms: int = 0  # when the present capacity was set
    banned_sequence: int = 0  # the entry with which the operator banned it
    personal: str = ""  # the digest of its personal fields (see person.py)
    erased_sequence: int = 0  # the entry with which they were erased
    registered: int = 0  # the entry of its registration; after an announcement it comes last in ties

    @property
    def interests(self) -> tuple[str, ...]:
        """The names and keys by which linked parties are recognised."""
        names = (self.id, self.controller, self.belongs_to, self.public_key, *self.former_keys)
        return tuple(name for name in names if name)


class Signature(msgspec.Struct, frozen=True, omit_defaults=True):
    """A party's signature of a statement: the nonce, the expiry (ms since 1970) and 64 bytes of Ed25519."""

    nonce: str
    expires_ms: int
    signature: bytes


def e164(number: str, region: str | None = None) -> str:
    """The number in E.164 form (`+442079460018`); `region` is where a national form was written, such as `GB`.

    Raises BadNumber for an impossible or invalid number."""
    import phonenumbers  # only when needed: its tables take longer to import than the market

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException as reason:
        raise BadNumber(f"{number!r} is not a telephone number: {reason}") from None
    if not phonenumbers.is_valid_number(parsed):
        raise BadNumber(f"{number!r} is not a valid telephone number")
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def check_id(name: str) -> str:
    """Checks a name for the journal: 1 to 128 printable characters without spaces or slashes."""
    if not isinstance(name, str) or not 0 < len(name) <= ID_LENGTH_MAX:
        raise BadValue(f"a name has 1 to {ID_LENGTH_MAX} characters: {name!r}")
    if not name.isprintable() or "/" in name or " " in name:
        raise BadValue(f"a name is printable and has no spaces or slashes: {name!r}")
    return name


def check_chosen(name: str) -> str:
    """Checks an id that a caller has chosen for something new. It cannot be one that the market could give to something
    else, nor a public key."""
    return check_not_reserved(check_id(name))


def is_chosen(name: str) -> bool:
    """Whether a caller may have chosen this id: it is none that the market gives."""
    return _RESERVED.fullmatch(name) is None


def check_not_reserved(name: str) -> str:
    if not is_chosen(name):
        raise BadValue(f"{name!r} has the form of an id that the market gives, or of a public key: choose another")
    return name


def check_public_key(public_key: str) -> str:
    """Checks a key: 32 bytes as hexadecimal digits, canonically encoded (RFC 8032, 5.1.3) and of full order. Raises
    BadValue."""
    try:
        raw = bytes.fromhex(public_key)
    except (ValueError, TypeError):
        raise BadValue("a public key is 64 hexadecimal digits") from None
    if len(raw) != 32:
        raise BadValue("a public key is 32 bytes")
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _PRIME or _is_small_order(y):
        raise BadValue("anyone could sign for this public key: it is of small order, or not canonically encoded")
    return raw.hex()


@lru_cache(maxsize=4096)  # the terms of every receipt have the same keys
def _is_small_order(y: int) -> bool:
    """Whether the point with this y has an order dividing 8. Doubling uses the curve's equation alone:
    x^2 = (y^2 - 1) / (d y^2 + 1), and y(2P) = (y^2 + x^2) / (2 + x^2 - y^2) since a = -1."""
    d = -121665 * pow(121666, -1, _PRIME) % _PRIME
    for _ in range(3):
        square = y * y % _PRIME
        x_square = (square - 1) * pow(d * square + 1, -1, _PRIME) % _PRIME
        denominator = (2 + x_square - square) % _PRIME
        if denominator == 0:
            return False  # cannot happen on the curve: the addition law is complete
        y = (square + x_square) * pow(denominator, -1, _PRIME) % _PRIME
    return y == 1


def canonical_bytes(purpose: str, auction: str, party: str, nonce: str, expires_ms: int, body: dict[str, Any]) -> bytes:
    """The bytes that a party signs: one JSON object with sorted keys and no spaces, of `auction`, `body`, `expires_ms`,
    `nonce`, `party`, `purpose` (`bid`, `rating`, `delivery`, ...) and the version of this form."""
    return msgspec.json.encode(
        {
            "auction": auction,
            "body": body,
            "expires_ms": expires_ms,
            "nonce": nonce,
            "party": party,
            "purpose": purpose,
            "version": 1,
        },
        order="sorted",
    )


def sign(private_key: Ed25519PrivateKey, statement: bytes, nonce: str, expires_ms: int) -> Signature:
    """The signature of a party over `canonical_bytes(...)` made with the same nonce and expiry."""
    return Signature(nonce=nonce, expires_ms=expires_ms, signature=private_key.sign(statement))


class Verifier:
    """Verifies signatures, and caches the parsed keys."""

    def __init__(self) -> None:
        self._keys: dict[str, Ed25519PublicKey] = {}

    def verify(self, public_key: str, statement: bytes, signature: Signature, now_ms: int) -> None:
        """Raises Expired, or BadSignature for one that is forged, altered or malleable (S not below the order)."""
        if not now_ms < signature.expires_ms <= now_ms + SIGNED_VALIDITY_MS_MAX:
            raise Expired("the signed statement has expired, or its expiry is later than the market remembers nonces")
        if len(signature.signature) != 64:
            raise BadSignature("an Ed25519 signature is 64 bytes")
        if int.from_bytes(signature.signature[32:], "little") >= _GROUP_ORDER:
            raise BadSignature("the signature is malleable: its second half is not below the order of the group")
        if not public_key:
            raise BadSignature("the party has registered no key")
        key = self._keys.get(public_key)
        if key is None:
            key = self._keys[public_key] = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        try:
            key.verify(signature.signature, statement)
        except InvalidSignature:
            raise BadSignature("the signature does not verify for this statement and this party's key") from None


def check_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """Checks attributes of a party, or those that a block requires: printable names and values. Raises BadValue."""
    if len(attributes) > ATTRIBUTES_MAX:
        raise BadValue(f"there can be at most {ATTRIBUTES_MAX} attributes")
    for name, value in attributes.items():
        check_id(name)
        if len(value) > ID_LENGTH_MAX or not value.isprintable():
            raise BadValue(f"the value of an attribute has at most {ID_LENGTH_MAX} printable characters: {value!r}")
    return dict(attributes)


def lacks(party: Party, required: Mapping[str, str]) -> str:
    """The first required attribute that the party does not have; empty if it has all. An empty value stands for any."""
    for name, value in required.items():
        own = party.attributes.get(name)
        if own is None or (value and own != value):
            return f"{name}={value}" if value else name
    return ""


def token_hash(token: str) -> str:
    """The stored form of a token. Tokens are 32 random bytes, so a plain SHA-256 cannot be reversed by search."""
    return hashlib.sha256(token.encode()).hexdigest()


def are_linked(one: Party, other: Party) -> bool:
    """Whether two parties are linked: the same party, one controller or key, or one belongs to the other."""
    return not set(one.interests).isdisjoint(other.interests)
