"""The states of a segment and of a peer: two tables, with one row for each event that may happen in a state.

Whatever is not in a table cannot happen: `SEGMENT[state, event]` raises KeyError then, which is a bug of this folder,
never a peer's doing. docs/ARCHITECTURE.md shows both tables, and tests/streamcore/disperse/test_simulation.py plays
every row. What is done at an event stands in machine.py and in the files that it lists.
"""

from __future__ import annotations

SEGMENT = {
    ("new", "added"): "waiting",  # submitted: it waits in its lane's queue
    ("new", "withdrawn"): "again",  # whoever did it lied: it is done again
    ("waiting", "sent"): "out",  # a peer has a lease of it
    ("waiting", "passed"): "ended",  # overload: it leaves unprocessed
    ("waiting", "unserved"): "ended",  # nobody runs its stream
    ("out", "not sent"): "waiting",  # the peer's socket was full, or there was no memory for its result
    ("out", "not sent again"): "again",  # the same, and it was sent before
    ("out", "not sent to another"): "aside",  # the same, and it was set aside
    ("out", "done"): "ended",  # its result was accepted
    ("out", "claimed"): "again",  # it has a result, which an audit compares with another one
    ("out", "lost"): "again",  # its peer is gone, or failed it
    ("out", "failed alone"): "aside",  # failed too often, but by one worker elsewhere alone: it waits for another
    ("out", "failed"): "ended",  # failed too often: a dead letter; with a claim, the claim counts
    ("again", "sent"): "out",
    ("again", "unserved"): "ended",
    ("again", "not audited"): "ended",  # nobody is left who could audit it: the claim counts
    ("aside", "sent"): "out",
    ("aside", "unserved"): "ended",
    ("aside", "expired"): "ended",  # no other worker came: a dead letter; with a claim, the claim counts
}

PEER = {
    ("new", "started"): "starting",  # its process was started, or it asked to join
    ("starting", "hello"): "ready",  # only now may it get segments
    ("starting", "gone"): "gone",
    ("ready", "full"): "full",  # it takes no message now
    ("ready", "leave"): "leaving",  # it gets no more segments, and joins again when it has finished its own
    ("ready", "gone"): "gone",  # died, hung, lied, struck, given up: others get its segments
    ("full", "room"): "ready",
    ("full", "leave"): "leaving",
    ("full", "gone"): "gone",
    ("leaving", "gone"): "gone",
}
