"""Results in any order -> the second stream, in the order asked for."""
