"""Completes checksums and segments that a machine leaves to its network hardware: in copies, and when sending."""
