"""Shows a run's figures while it runs, to people and to monitoring. It only reads."""
