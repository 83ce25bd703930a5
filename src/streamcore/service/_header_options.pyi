"""Rewrites options and extension headers. Only for `cimport`: there is nothing in it for Python."""
