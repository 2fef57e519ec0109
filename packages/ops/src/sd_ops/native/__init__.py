"""Kernels in C that are compiled for this processor at their first use, where there is a compiler.

Nothing needs them: where they cannot be had, torch's own do the same work in more time.
"""
