"""Special addresses stay, and no other becomes one of them."""

from __future__ import annotations

import ipaddress
import random

import numpy as np
import pytest

from streamcore.service.anonymise import CryptoPan
from streamcore.service.special import SpecialKeeper

KEY = bytes(range(32))
STAY = ["0.0.0.0", "255.255.255.255", "127.0.0.1", "127.255.3.4", "224.0.0.1", "239.255.255.250"]
STAY6 = ["::", "::1", "ff02::1", "ff02::1:2", "ff05::fb"]


def maps4(*texts: str) -> list[str]:
    numbers = np.array([int(ipaddress.IPv4Address(text)) for text in texts], np.uint32)
    return [str(ipaddress.IPv4Address(int(each))) for each in SpecialKeeper(CryptoPan(KEY)).map4(numbers)]


def maps6(*texts: str) -> list[str]:
    numbers = [int(ipaddress.IPv6Address(text)) for text in texts]
    halves = np.array([[each >> 64, each & (1 << 64) - 1] for each in numbers], np.uint64)
    mapped = SpecialKeeper(CryptoPan(KEY)).map6(halves).tolist()
    return [str(ipaddress.IPv6Address(high << 64 | low)) for high, low in mapped]


def test_those_that_name_no_host_stay():
    assert maps4(*STAY) == STAY
    assert maps6(*STAY6) == STAY6


@pytest.mark.parametrize(
    ("address", "bits"),
    [("169.254.17.3", 16), ("233.1.2.3", 8), ("fe80::1234", 64), ("ff02::1:ff12:3456", 104), ("ff35:40:2001::1", 16)],
)
def test_of_others_the_scope_alone_stays(address, bits):
    mapped = (maps6 if ":" in address else maps4)(address)[0]
    assert mapped != address
    assert ipaddress.ip_address(mapped) in ipaddress.ip_network(f"{address}/{bits}", strict=False)


def test_a_mapped_address_stands_for_the_same_one():
    assert maps6("::ffff:10.1.2.3") == [str(ipaddress.IPv6Address("::ffff:" + maps4("10.1.2.3")[0]))]


def test_no_other_address_becomes_special_and_none_stands_for_two():
    rng = random.Random(3)
    numbers = np.unique(np.array([rng.getrandbits(32) for _ in range(20_000)], np.uint32))
    mapped = SpecialKeeper(CryptoPan(KEY)).map4(numbers)
    assert len(np.unique(mapped)) == len(numbers)
    for before, after in zip(numbers.tolist(), mapped.tolist(), strict=True):
        assert is_special(before) == is_special(after)


def is_special(number: int) -> bool:
    address = ipaddress.IPv4Address(number)
    return number == 0 or number == 2**32 - 1 or address.is_loopback or address.is_link_local or address.is_multicast
