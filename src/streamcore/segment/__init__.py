"""Header columns -> segments: divides batches into segments and assigns packets to lanes."""
