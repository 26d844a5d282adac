"""Resumable work in many pieces: its store, its processes and its executors."""
