"""The command `auction`."""
