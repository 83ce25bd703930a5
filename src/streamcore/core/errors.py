"""Every error that a user can meet: one clear line that says what is wrong and, where it can, what to do."""


class StreamcoreError(Exception):
    """Base of them all. `exit_status` is what the command ends with."""

    exit_status = 1


class UsageError(StreamcoreError):
    """Wrong usage, BPF expression, service or pipeline file."""

    exit_status = 2


class SourceError(StreamcoreError):
    """The first stream cannot be opened, or is not a capture."""


class SinkError(StreamcoreError):
    """The second stream cannot be written."""


class RightsError(StreamcoreError):
    """A live interface cannot be opened without CAP_NET_RAW."""


class WorkerError(StreamcoreError):
    """No worker is left that could do the rest."""


class MarketError(StreamcoreError):
    """The market cannot be asked for providers."""
