"""The command `streamcore`: flags -> Config -> a run, and the demonstrations. Nothing imports it."""
