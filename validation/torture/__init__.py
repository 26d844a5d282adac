"""Trials that try to make the package fail: damage, interruptions, threads, long runs."""
