"""Flows of a capture, as a table for people and in the formats of others' programs.

reading.py reads the capture; writers.py has the formats, one file for each; columns.py says what there is of a flow.
"""
