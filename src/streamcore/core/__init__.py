"""The packets that travel, and what every stage uses: configuration, counters, errors, routes."""
