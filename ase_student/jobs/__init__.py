"""Resumable work on many pieces: its store, its processes and its executors."""
