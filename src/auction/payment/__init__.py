"""The protocol of a payment processor, and the adapters to processors."""
