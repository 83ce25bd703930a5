"""Checksums and segments that a machine leaves to its network hardware, completed here: in a copy for captures and services, or when sending."""
