#!/usr/bin/env python3
"""Writes some seconds of G.711 A-law at 8 kHz, raw, that are shaped like speech: what a telephone call carries.

Not a recording of anyone: a sum of harmonics over a wandering pitch, in syllables with pauses.
usage: voice.py SECONDS PITCH_HZ SEED OUT
"""

import math
import random
import sys

RATE_HZ = 8000


def alaw(sample: int) -> int:
    """One 16-bit linear sample as one A-law byte (ITU-T G.711: sign, segment, step; every second bit inverted)."""
    sign = 0x80 if sample >= 0 else 0x00
    magnitude = (sample if sample >= 0 else ~sample) >> 4  # eleven bits are left
    segment = max(magnitude.bit_length() - 4, 0)
    code = magnitude if segment < 2 else segment << 4 | (magnitude >> (segment - 1)) & 0x0F
    return (sign | code) ^ 0x55


def speech(seconds: float, pitch_hz: float, chance: random.Random) -> bytes:
    """Syllables of 80 to 260 ms between pauses; about four in ten samples are silence, as in a conversation."""
    out = bytearray()
    phase = 0.0
    while len(out) < seconds * RATE_HZ:
        length = int(chance.uniform(0.08, 0.26) * RATE_HZ)
        pitch = pitch_hz * chance.uniform(0.85, 1.2)
        weights = [chance.uniform(0.1, 1.0) / harmonic for harmonic in range(1, 12)]
        scale = 11000 / sum(weights)
        for index in range(length):
            phase += 2 * math.pi * pitch / RATE_HZ
            envelope = math.sin(math.pi * index / length) ** 0.5
            tone = sum(weight * math.sin(phase * harmonic) for harmonic, weight in enumerate(weights, 1))
            out.append(alaw(int(scale * envelope * tone + chance.gauss(0, 60))))
        pause = int(chance.choice([0.02, 0.05, 0.1, 0.35]) * RATE_HZ)
        out.extend(alaw(int(chance.gauss(0, 12))) for _ in range(pause))
    return bytes(out[: int(seconds * RATE_HZ)])


if __name__ == "__main__":
    seconds, pitch, seed, path = sys.argv[1:]
    with open(path, "wb") as file:
        file.write(speech(float(seconds), float(pitch), random.Random(int(seed))))
