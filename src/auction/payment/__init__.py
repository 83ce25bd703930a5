"""What a payment processor is asked for, and the adapters to processors."""
