"""Splitting the second stream: which of many files a packet belongs into."""
