"""The worker processes: local, remote, and those of a provider. Each combines disperse and service."""
