"""Fuzzing: `make fuzz`. Each target takes inputs that are nearly right, and fails on a wrong answer, an exception
that is none of ours, and any access outside of what it was given, because what lies behind each input may not be
touched (guarded.py).
"""
