"""The storage of a market: the journal, in memory or in a database, and the migrations of older databases."""
