"""What travels (packets), and what every stage uses: configuration, counters, errors, routes."""
