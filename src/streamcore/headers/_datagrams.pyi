"""Only for `cimport`: there is nothing in it for Python."""
