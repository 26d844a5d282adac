"""Stress tests of the package: damaged files, interruptions, threads, long runs."""
