"""One command that makes a published student from a finished training.

It runs the commands for export, validation, stability, benchmarks and model cards one after the
other, keeps their results, and compares the new student with the published student of that name.
"""
