"""Packet bytes -> header columns: link layers, IP, ports, flow. Also the filter, which decides which packets stay."""
