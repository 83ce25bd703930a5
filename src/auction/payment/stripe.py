"""A card processor: Stripe's PaymentIntents with manual capture, through the `stripe` package (the extra `cards`).

Each call becomes one request under the market's own idempotency key, and each answer an Outcome. No market rule is
here. Documented at docs.stripe.com/payments/place-a-hold-on-a-payment-method.
"""

from __future__ import annotations

from typing import Any

from auction.model.errors import BadSignature, PaymentUnknown
from auction.payment.protocol import Dispute, Outcome


class StripeProcessor:
    """`api_key` is Stripe's secret key, `webhook_secret` the signing secret of the endpoint that receives its notices.
    `base_url` names a server other than Stripe's (a proxy, or a stand-in in tests)."""

    def __init__(self, api_key: str, webhook_secret: str = "", base_url: str | None = None) -> None:
        import stripe  # an extra, only needed for cards

        self._stripe = stripe
        self._webhook_secret = webhook_secret
        addresses: Any = {"api": base_url} if base_url else {}
        self._client: Any = stripe.StripeClient(api_key, base_addresses=addresses, max_network_retries=0)

    def authorise(self, key: str, source: str, amount: int, currency: str) -> Outcome:
        """Confirms a PaymentIntent that holds the amount. `source` is a payment method, such as `pm_card_visa`."""
        wanted = {
            "amount": amount,
            "currency": currency.lower(),
            "payment_method": source,
            "confirm": True,
            "capture_method": "manual",
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        }
        return self._outcome(lambda: self._intents.create(wanted, {"idempotency_key": key}), {"requires_capture"})

    def capture(self, key: str, reference: str, amount: int) -> Outcome:
        wanted = {"amount_to_capture": amount}
        return self._outcome(lambda: self._intents.capture(reference, wanted, {"idempotency_key": key}), {"succeeded"})

    def void(self, key: str, reference: str) -> Outcome:
        return self._outcome(lambda: self._intents.cancel(reference, {}, {"idempotency_key": key}), {"canceled"})

    def refund(self, key: str, reference: str, amount: int) -> Outcome:
        wanted = {"payment_intent": reference, "amount": amount}
        refunds = self._client.v1.refunds
        return self._outcome(
            lambda: refunds.create(wanted, {"idempotency_key": key}), {"succeeded", "pending"}, reference
        )

    def read_dispute(self, payload: bytes, signature: str) -> Dispute | None:
        try:
            event = self._client.construct_event(payload, signature, self._webhook_secret)
        except (ValueError, self._stripe.SignatureVerificationError) as reason:
            raise BadSignature(f"the notice is not Stripe's: {reason}") from None
        if event.type != "charge.dispute.created":
            return None
        dispute = event.data.object
        return Dispute(
            event=event.id,
            reference=dispute.payment_intent,
            amount=dispute.amount,
            currency=dispute.currency.upper(),
            reason=dispute.reason,
        )

    @property
    def _intents(self) -> Any:
        return self._client.v1.payment_intents

    def _outcome(self, call: Any, good: set[str], reference: str = "") -> Outcome:
        """Makes the call. A refused card is an Outcome; no answer, or a server error, raises PaymentUnknown."""
        try:
            answer = call()
        except self._stripe.CardError as reason:
            return Outcome(False, "", getattr(reason.error, "decline_code", None) or reason.code or "declined")
        except self._stripe.InvalidRequestError as reason:
            return Outcome(False, "", reason.code or "invalid_request")
        except self._stripe.StripeError as reason:
            raise PaymentUnknown(f"Stripe gave no definite answer: {reason}") from reason
        if answer.status in good:
            received = (
                getattr(answer, "amount_received", None) if answer.status == "succeeded" and not reference else None
            )
            return Outcome(True, reference or answer.id, amount=received)
        return Outcome(False, answer.id, answer.status)
