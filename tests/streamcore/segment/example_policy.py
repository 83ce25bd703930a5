"""An example of a policy, as docs/ARCHITECTURE.md says that one is added: a cutter in Python, and what its row says."""

import numpy as np

from streamcore.core.policies import Policy


class Gaps:
    """Cuts where more than segment_ms of capture time pass between two packets of a stream."""

    def __init__(self, bounds):
        self._gap_ns = bounds.segment_ms * 1_000_000
        self.given = []  # what preceded, each time

    def feed(self, batch, start, stop, preceding):
        self.given.append(preceding)
        rows = np.arange(start, stop) if batch.rows is None else batch.rows[start:stop]
        return start + 1 + np.flatnonzero(np.diff(batch.timestamp_ns[rows]) > self._gap_ns)


class Wrong:
    """Gives the places that `places` holds, which no batch has."""

    places = ()

    def __init__(self, bounds):
        pass

    def feed(self, batch, start, stop, preceding):
        return np.array(self.places)


GAPS = Policy("gaps in the capture's time", cutter=f"{__name__}:Gaps", segment_ms=500, owns_segment_ms=True)
WRONG = Policy("places that are none", cutter=f"{__name__}:Wrong")
