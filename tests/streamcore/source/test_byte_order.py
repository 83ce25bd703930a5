"""Blocks without packets in either byte order: the big-endian one becomes the little-endian one, made by `struct`."""

import struct

from streamcore.source._byte_order import little_endian


def block(order, kind, body):
    size = 12 + len(body)
    return struct.pack(order + "II", kind, size) + body + struct.pack(order + "I", size)


def option(order, code, value):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def blocks(order):
    """One of each kind whose layout is known."""
    end = struct.pack(order + "HH", 0, 0)
    names = option(order, 1, b"\x0a\0\0\1host.example\0") + end + option(order, 2, b"dns") + end
    statistics = struct.pack(order + "III", 3, 0x01020304, 0x05060708) + option(order, 1, b"as seen")
    statistics += option(order, 2, struct.pack(order + "II", 9, 8)) + option(order, 4, struct.pack(order + "Q", 77))
    statistics += option(order, 2988, struct.pack(order + "I", 32473) + b"mine") + end
    secrets = struct.pack(order + "II", 0x544C534B, 5) + b"CLIEN\0\0\0" + option(order, 1, b"keys") + end
    return [
        block(order, 4, names), block(order, 5, statistics), block(order, 10, secrets),
        block(order, 9, b"__CURSOR=1\n\0"), block(order, 0xBAD, struct.pack(order + "I", 32473) + b"any bytes..."),
        block(order, 10, struct.pack(order + "II", 1, 0)), block(order, 4, b""),
    ]  # fmt: skip


def test_known_blocks_are_turned():
    for number, (big, little) in enumerate(zip(blocks(">"), blocks("<"), strict=True)):
        assert little_endian(big) == little, number


def test_what_cannot_be_turned_is_not_guessed_at():
    assert little_endian(block(">", 0x80000001, bytes(8))) is None
    assert little_endian(block(">", 10, b"\0\0\0\1")) is None
    for whole in blocks(">"):
        for cut in range(0, len(whole) - 12, 4):  # of any length, none is longer than it was
            turned = little_endian(block(">", int.from_bytes(whole[:4], "big"), whole[8 : 8 + cut]))
            assert turned is None or len(turned) == 12 + cut
