"""Registers a provider in a served market: registration, token, and signing key."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auction.model.errors import AuctionError
from auction.model.party import Signature
from auction.model.signing import party_body, sign_statement
from auction.web.client import MarketClient
from streamcore.core.errors import MarketError, UsageError

RETRY_MS = 1_000  # how long one request is retried; after that the caller repeats it
SIGNED_MS = 600_000  # how long a registration's signature is valid, by our own clock


def connect(url: str, token_file: str, party: str, capacity_bps: int, signing_key: Ed25519PrivateKey) -> Any:
    """The client of a served market for the token's party. If there is no token yet, registers `party` and writes its
    token. Raises UsageError, MarketError.
    """
    path = Path(token_file)
    try:
        if not path.exists():
            if not party:
                raise UsageError(f"there is no {path}: put the market's token in it, or give --party NAME to register")
            with MarketClient(url) as client:
                registered = client.register(
                    party,
                    "provider",
                    public_key=public_of(signing_key),
                    capacity_bps=capacity_bps,
                    signature=sign_registration(signing_key, party),
                )
            if not registered.token:
                raise MarketError(f"{party} is registered, but its token was lost in transit: ask the operator")
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w") as file:
                file.write(registered.token + "\n")
        return MarketClient(url, path.read_text().strip(), retry_for_ms=RETRY_MS)
    except AuctionError as error:
        raise MarketError(f"the market at {url}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot use the market's token in {path}: {error}") from None


def sign_registration(signing_key: Ed25519PrivateKey, party: str) -> Signature:
    """Proves possession of the key."""
    return sign_statement(
        signing_key, "party", "", party, party_body("", public_of(signing_key)),
        nonce=secrets.token_hex(16), expires_ms=time.time_ns() // 1_000_000 + SIGNED_MS,
    )  # fmt: skip


def party_of(market: Any, signing_key: Ed25519PrivateKey) -> tuple[str, Ed25519PrivateKey | None]:
    """Our party in the market, and the key if the market has it registered. Raises MarketError."""
    try:
        name: str = market.name
        is_known = market.party(name).public_key == public_of(signing_key)
    except AuctionError as error:
        raise MarketError(f"the market: {error}") from None
    return name, signing_key if is_known else None


def public_of(signing_key: Ed25519PrivateKey) -> str:
    return signing_key.public_key().public_bytes_raw().hex()


def signing_key_of(curve_secret: bytes) -> Ed25519PrivateKey:
    """Derives a provider's signing key from its CURVE secret, so that it has one secret file to keep."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"streamcore.provider.sign\0" + curve_secret).digest())
