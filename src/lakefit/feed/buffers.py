"""Memory that is used again when nobody refers to it any more.

A fresh array of some megabytes costs a page fault each 4 kB, more than the copy that fills it; and what threads free,
the C library gives back to the system, and takes anew.
"""

import sys
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes: TensorFlow takes an array that begins at a multiple of it as it is, and copies any other."""

# References to a buffer that nobody uses: the list's, the loop's and getrefcount's own.
_NOBODY = 3
# Bytes within which any size is as good as another.
_SMALL = 1 << 16
# So many buffers are kept, used or not, before unused ones are let go of.
_MANY = 64


class Buffers:
    """Arrays on memory that nobody refers to any more: numpy's views, and TensorFlow's tensors, refer to its owner.

    Several threads may ask.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._owners: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return a C-contiguous array of any values."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        with self._lock:
            free = None
            for owner in self._owners:
                if sys.getrefcount(owner) == _NOBODY and size <= len(owner) - ALIGNMENT <= 2 * size + _SMALL:
                    free = owner
                    break
            if free is None:
                if len(self._owners) >= _MANY:
                    self._owners = [owner for owner in self._owners if sys.getrefcount(owner) > _NOBODY]
                free = np.empty(size + ALIGNMENT, np.uint8)
                self._owners.append(free)
            start = -free.ctypes.data % ALIGNMENT
            return free[start : start + size].view(dtype).reshape(shape)
