"""One run: names the stages in order, starts and ends them, and accounts for every packet."""
