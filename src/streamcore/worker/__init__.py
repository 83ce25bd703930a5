"""The worker processes: on this machine, elsewhere, and those of a provider. Each composes disperse and service."""
