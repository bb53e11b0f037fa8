"""A process that holds secrets keeps its memory to itself."""

import ctypes

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Leave no core dump, whatever the limits say, and let nobody but root attach or read /proc.

    It holds until the next `execve`, and is not inherited by a program that is executed. What
    everybody may read in /proc (stat, status, limits) stays as it is.
    """
    # A kernel or filter that refuses it leaves the limits, which the units set.
    ctypes.PyDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
