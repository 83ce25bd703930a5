"""A thin auction and rating layer for blocks of time of a service. It imports nothing of streamcore."""
