"""The words and the arithmetic of one deal: money, blocks, bids, awards, agreements, delivery, ratings.

Pure: no clock, no files, no network.
"""
