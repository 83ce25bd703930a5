"""Header columns -> segments: where the first stream is cut, and which lane a packet belongs to."""
