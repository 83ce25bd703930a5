"""Rewrites headers of tunnels. Only for `cimport`: there is nothing in it for Python."""
