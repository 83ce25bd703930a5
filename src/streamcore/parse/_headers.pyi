"""The general parser of one packet. Only for `cimport`: there is nothing in it for Python."""
