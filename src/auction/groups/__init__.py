"""Groups of parties: sharing a block, sponsoring members that do not pay, bargaining. Pure."""
