"""What can be done to a segment: the protocol, the view that a service works on, and one file per service."""
