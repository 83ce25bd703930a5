"""Several who act as one: sharing a block, sponsoring those who will not pay, bargaining. Pure."""
