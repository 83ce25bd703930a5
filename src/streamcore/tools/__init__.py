"""Tools without a pipeline: columns of a capture, tables of packets and flows, checks of the machine."""
