"""The statements that parties sign, for the moderator and for clients alike.

Pure. `party.canonical_bytes` makes the bytes; the functions here name the fields of each statement.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auction.model.bid import Bid
from auction.model.party import Signature, canonical_bytes, sign


def bid_body(bid: Bid) -> dict[str, Any]:
    """Everything that the bidder chose, and nothing that the moderator adds; an insured amount if there is one."""
    body: dict[str, Any] = {
        "currency": bid.currency,
        "items": list(bid.items),
        "limit": bid.limit,
        "price": bid.price,
        "quantity": bid.quantity,
        "salt": bid.salt,
    }
    return {**body, "insured": bid.insured} if bid.insured else body


def commitment_body(commitment: str, deposit: int = 0) -> dict[str, Any]:
    return {"commitment": commitment, "deposit": deposit}


def party_body(controller: str, public_key: str) -> dict[str, Any]:
    """What a party consents to: its controller, or that another party has its key."""
    return {"controller": controller, "public_key": public_key}


def offer_body(
    service: str, unit_price: int, currency: str, quantity: int, rate_bps_max: int, valid_until_ms: int, region: str
) -> dict[str, Any]:
    return {
        "currency": currency,
        "quantity": quantity,
        "rate_bps_max": rate_bps_max,
        "region": region,
        "service": service,
        "unit_price": unit_price,
        "valid_until_ms": valid_until_ms,
    }


def endpoint_body(address: str, curve_key: str) -> dict[str, Any]:
    return {"address": address, "curve_key": curve_key}


def rating_body(satisfied: bool, remark: str, device: str) -> dict[str, Any]:
    return {"device": device, "remark": remark, "satisfied": satisfied}


def sign_statement(
    private_key: Ed25519PrivateKey,
    purpose: str,
    subject: str,
    party: str,
    body: dict[str, Any],
    *,
    nonce: str,
    expires_ms: int,
) -> Signature:
    """Signs one statement. `subject` is the auction for bids, the agreement for ratings; `purpose` is `bid`,
    `commitment`, `offer`, `endpoint`, `rating`, `party`, or `key` (by the new key, with the body of `party`)."""
    return sign(private_key, canonical_bytes(purpose, subject, party, nonce, expires_ms, body), nonce, expires_ms)
