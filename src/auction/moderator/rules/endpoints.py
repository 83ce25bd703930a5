"""Where a party listens, and which offers a recipient wants connected."""

from __future__ import annotations

from auction.model.endpoint import Endpoint, Warm
from auction.model.errors import NotAllowed
from auction.model.party import ORGANISATIONS, Signature
from auction.model.signing import endpoint_body
from auction.moderator.draft import Draft
from auction.moderator.rules import parties


def publish_endpoint(draft: Draft, party: str, curve_key: str, address: str, signature: Signature | None) -> Endpoint:
    if draft.party(party).kind not in ORGANISATIONS:
        raise NotAllowed("recipients and providers publish endpoints")
    parties.check_signature(draft, "endpoint", "", party, endpoint_body(address, curve_key), signature)
    published = Endpoint(party, address, curve_key, draft.at_ms)
    draft.put("endpoint", party, published)
    return published


def keep_warm(draft: Draft, recipient: str, offers: tuple[str, ...], until_ms: int) -> Warm:
    parties.check_organisation(draft, recipient)
    for offer in offers:
        draft.get("offer", offer)
    warm = Warm(recipient, offers, until_ms)
    draft.put("warm", recipient, warm)
    return warm
