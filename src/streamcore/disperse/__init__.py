"""Segments -> leases -> results: envelope, workers, credit, and the dispatcher that owns them all."""
