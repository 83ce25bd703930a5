"""The errors that a user can see. Each is one line that says what is wrong and, if possible, what to do."""


class StreamcoreError(Exception):
    """Base class of these errors. The command exits with `exit_status`."""

    exit_status = 1


class UsageError(StreamcoreError):
    """A command line, BPF expression, service or pipeline file is wrong."""

    exit_status = 2


class SourceError(StreamcoreError):
    """The input cannot be opened, or is not a capture."""


class SinkError(StreamcoreError):
    """The output cannot be written."""


class ReaderGone(SinkError):
    """The reader of a pipe has closed it: the command ends without a word, with SIGPIPE's status."""


class RightsError(StreamcoreError):
    """The process lacks CAP_NET_RAW, which opening a live interface needs."""


class WorkerError(StreamcoreError):
    """No worker is left to process the remaining segments."""


class MarketError(StreamcoreError):
    """The market does not answer, or refused a request."""
