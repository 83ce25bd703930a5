"""The flow key of any packet, and the parser's table of fragments; its methods are for `cimport`."""

class Fragments:
    """entries_max: fragmented packets remembered at once, at least; seed: of the flow hash; by: BY_*."""

    def __init__(self, entries_max: int, seed: int, by: int = 0) -> None: ...
