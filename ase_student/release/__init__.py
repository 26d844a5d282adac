"""From a finished training to a student that can be published, in one command.

Nothing here computes anything of its own: it runs the commands for export, validation, stability,
benchmarks and model cards one after the other, keeps what each of them gave, and compares with the
student of that name that is there.
"""
