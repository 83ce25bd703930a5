"""Takes money that goes round in circles out of a list of payments. Ratings weigh deals by the rest.

Pure: it stores nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from auction.model.money import check_amount


def without_circles(payments: Iterable[tuple[str, str, int]]) -> dict[tuple[str, str], int]:
    """The payments without any money that went round in a circle of any length.

    Payments are (payer, payee, minor units). Each circle is reduced by its smallest payment, in the order of names,
    until none is left; every party's balance stays the same. So deals among accomplices that return the money weigh
    nothing, while a chain of subcontracts keeps its value.
    """
    left: dict[str, dict[str, int]] = {}
    for payer, payee, amount in payments:
        check_amount(amount, "payment")
        if payer != payee and amount:
            row = left.setdefault(payer, {})
            row[payee] = row.get(payee, 0) + amount
    finished: set[str] = set()
    for start in sorted(left):
        path = [start] if start not in finished else []
        while path:
            onward = min((payee for payee in left.get(path[-1], ()) if payee not in finished), default=None)
            if onward is None:
                finished.add(path.pop())
            elif onward not in path:
                path.append(onward)
            else:
                path = _cancel(left, path, path.index(onward))
    return {(payer, payee): amount for payer, row in sorted(left.items()) for payee, amount in sorted(row.items())}


def _cancel(left: dict[str, dict[str, int]], path: list[str], first: int) -> list[str]:
    """Takes the circle path[first:] out of `left`. Returns the path up to its first edge that is gone."""
    circle = [*path[first:], path[first]]
    edges = list(pairwise(circle))
    least = min(left[payer][payee] for payer, payee in edges)
    keep = len(path)
    for place in reversed(range(len(edges))):
        payer, payee = edges[place]
        left[payer][payee] -= least
        if not left[payer][payee]:
            del left[payer][payee]
            keep = first + place + 1
    return path[:keep]
