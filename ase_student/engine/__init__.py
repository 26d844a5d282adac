"""The C++ engine that runs students on CPUs, and its loading.

``ase_student.h`` is its interface for C; :class:`ase_student.engine.library.Handle` that for
Python.
"""
