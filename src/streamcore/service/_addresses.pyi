"""Finds the addresses that a packet shows. Only for `cimport`: there is nothing in it for Python."""
