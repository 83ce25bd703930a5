"""The records and the arithmetic of one deal: money, blocks, bids, awards, agreements, receipts, ratings.

Pure: no clock, no files, no network.
"""
