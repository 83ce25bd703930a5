"""Streams that providers run: finding providers, and measuring what they deliver. The only folder that imports
`auction`."""
