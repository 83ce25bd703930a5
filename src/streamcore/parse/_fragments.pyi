"""The flow key of any packet, and the table of fragments that a parser keeps; its methods are for `cimport`."""

class Fragments:
    """entries_max: fragmented packets that are remembered at once, at least; seed: of the flow hash; by: BY_*."""

    def __init__(self, entries_max: int, seed: int, by: int = 0) -> None: ...
