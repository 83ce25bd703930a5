"""What is done with captures without a pipeline: columns, tables of packets and flows, checks of the machine."""
