"""What a run is like while it goes on, for people and for monitoring. It reads figures and changes nothing."""
