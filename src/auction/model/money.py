"""Amounts of money: checks, sums within bounds, and exact splits.

Amounts are whole minor units (cents) of one currency, from 0 to 2**63 - 1. Each rule says where a rounding remainder
goes. There is no conversion between currencies here, and no payment.
"""

from __future__ import annotations

from collections.abc import Sequence

from auction.model.errors import BadAmount, BadCurrency, BadValue

AMOUNT_MAX = 2**63 - 1  # the largest value of a BIGINT column in every SQL store
MONEY_MAX = 2**53 - 1  # all the money in a market: whatever is paid within it, no balance and no sum can overflow
# The decimals of currencies (ISO 4217); all others have 2.
_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_DECIMALS = {
    **dict.fromkeys(_NONE.split(), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
PPM = 1_000_000  # fractions travel as whole parts per million, so that every party computes the same result


def check_integer(value: object, name: str, lowest: int = 0, highest: int = AMOUNT_MAX) -> int:
    """Returns `value` if it is an int within bounds. bool, float and NaN are not ints here. Raises BadValue."""
    if type(value) is int and lowest <= value <= highest:
        return value
    if type(value) is not int:
        raise BadValue(f"{name} must be an integer, not {type(value).__name__}")
    raise BadValue(f"{name} must be from {lowest} to {highest}, not {value}")


def check_amount(value: object, name: str = "amount") -> int:
    """Returns `value` if it is a whole number of minor units from 0 to 2**63 - 1. Raises BadAmount."""
    if type(value) is int and 0 <= value <= AMOUNT_MAX:
        return value
    if type(value) is not int:
        raise BadAmount(f"{name} must be a whole number of minor units, not {type(value).__name__}")
    raise BadAmount(f"{name} must {'not be negative' if value < 0 else 'be below 2**63'}: {value}")


def check_currency(value: object, expected: str | None = None) -> str:
    """Returns `value` if it is a currency code of three capitals (ISO 4217) and the expected one. Raises
    BadCurrency."""
    if type(value) is not str or len(value) != 3 or not (value.isascii() and value.isalpha() and value.isupper()):
        raise BadCurrency(f"a currency is three capital letters, not {value!r}")
    if expected is not None and value != expected:
        raise BadCurrency(f"the currency must be {expected}, not {value}")
    return value


def decimals_of(currency: str) -> int:
    """How many decimals an amount of this currency is shown with: 0 for JPY, 2 for EUR, 3 for KWD (ISO 4217)."""
    return _DECIMALS.get(currency, 2)


def as_decimal(amount: int, currency: str, separator: str = "") -> str:
    """An amount in minor units as decimal text: 4150 is 4150 JPY, 41.50 EUR, 4.150 KWD. Exact at any size."""
    decimals = decimals_of(currency)
    whole, rest = divmod(abs(amount), 10**decimals)
    sign = "-" if amount < 0 else ""
    shown = f"{whole:,}".replace(",", separator)
    return f"{sign}{shown}.{rest:0{decimals}}" if decimals else f"{sign}{shown}"


def check_ppm(value: object, name: str) -> int:
    """Returns `value` if it is a whole number of parts per million from 0 to 1,000,000. Raises BadValue."""
    if type(value) is int and 0 <= value <= PPM:
        return value
    return check_integer(value, name, 0, PPM)


def split_proportionally(total: int, weights: Sequence[int]) -> list[int]:
    """Splits `total` by `weights`, so that the parts add up to it exactly.

    Each part is first rounded down; the units left over go one each to the largest remainders, of equal remainders to
    the earlier one (Hamilton's method). So each part is within one unit of its exact value. Raises BadAmount, and
    BadValue for negative weights or weights that are all zero (unless the total is zero).
    """
    check_amount(total, "total")
    for weight in weights:
        check_integer(weight, "weight")
    weight_sum = sum(weights)
    if weight_sum == 0:
        if total:
            raise BadValue("an amount cannot be split by weights that are all zero")
        return [0] * len(weights)
    parts = [total * weight // weight_sum for weight in weights]
    left = total - sum(parts)
    if left:
        by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % weight_sum), i))
        for i in by_remainder[:left]:
            parts[i] += 1
    return parts
