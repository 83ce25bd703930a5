"""A packet-processing pipeline: segments dispersed over ZeroMQ, results aggregated into a second stream."""
