"""What a pipeline may have a worker elsewhere run: built-in services and installed entry points; a file of the worker's
machine only if whoever started the worker has named it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from streamcore.core.errors import WorkerError
from streamcore.core.text import shown
from streamcore.service.load import resolve
from streamcore.service.specification import parse_specification


def refuse_unallowed(chains: Sequence[Sequence[Any]], allowed: Sequence[str]) -> None:
    """Raises WorkerError if one of these services is in a file, or has an option that names one (`Service.paths`), that
    is not allowed. allowed: paths of files. Raises UsageError for a service that cannot be loaded.
    """
    known = {os.path.realpath(path) for path in allowed}
    for each in (each for chain in chains for each in chain):
        path = parse_specification(each)[0].rpartition(":")[0]  # before anything of the file is run
        if path and os.path.realpath(path) not in known:
            raise WorkerError(f"the pipeline wants the file {shown(path)}: only --allow lets it run a file")
        name, kind, options = resolve(each)
        for option in kind.paths:
            value = str(options.get(option, ""))
            if value and os.path.realpath(value) not in known:
                raise WorkerError(
                    f"the pipeline wants {shown(name)} to read the file {shown(value)}: only --allow lets it read one"
                )
