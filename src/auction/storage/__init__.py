"""Where a market is kept: the journal, in memory or in a database, and the steps from older databases."""
