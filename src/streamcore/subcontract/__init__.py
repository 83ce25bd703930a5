"""Streams that a provider runs: who gets them, and what is measured. The only folder that imports `auction`."""
