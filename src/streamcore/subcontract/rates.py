"""The maximum rate: a token bucket at submission, for each stream and for the whole agreement.

The provider must keep the minimum rate, which meter.py measures.
"""

from __future__ import annotations

BURST_S = 0.05  # the burst, as time at the rate


class Bucket:
    """Bits at rate_bps. A segment may go while there is credit, and a larger one takes the credit below zero. So in any
    time t at most rate x (t + BURST_S) bits and one segment leave.
    """

    def __init__(self, rate_bps: int) -> None:
        self._rate_bps = rate_bps
        self._bits = rate_bps * BURST_S
        self._at_s: float | None = None

    def pause_s(self, now_s: float) -> float:
        """Seconds until a segment may go; 0: now."""
        self._fill(now_s)
        return 0.0 if self._bits > 0 else -self._bits / self._rate_bps + 1e-6

    def take(self, bits: int, now_s: float) -> None:
        self._fill(now_s)
        self._bits -= bits

    def _fill(self, now_s: float) -> None:
        if self._at_s is not None:
            self._bits = min(self._rate_bps * BURST_S, self._bits + (now_s - self._at_s) * self._rate_bps)
        self._at_s = now_s
