"""Packet bytes -> header columns: link layers, IP, ports, flow; and the filter, which says which packets stay."""
