"""Segments -> leases -> results: the envelope, the workers, credit, and the dispatcher that owns them all."""
