"""The type of a figure in a report. Services say with it what they report (`report_type`)."""

from __future__ import annotations

from typing import Annotated

import msgspec

# Of one segment, packets or bytes: no segment has more, and the sum of 2^24 of them is still a uint64.
Figure = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
