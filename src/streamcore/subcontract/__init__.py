"""Segments that a provider runs: who gets them, and what is measured of it. The only room that meets the auction."""
