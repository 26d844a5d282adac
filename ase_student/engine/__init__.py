"""The C++ engine that runs students on CPUs.

``ase_student.h`` is its interface for C, and :class:`ase_student.engine.library.Handle` its
interface for Python; :mod:`ase_student.engine.loading` finds and loads the compiled library.
"""
